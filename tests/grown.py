"""Trees with tokens, outcomes and log-probabilities, as a rollout would leave them, but without one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st
from trees import draw

from spark_rl.types import Tree

VOCABULARY = 16


def ended(parents: Sequence[int], rewards: Sequence[float] = ()) -> Tree:
    """A tree from its parent list, its leaves with the given rewards."""
    leaves = draw(list(parents)).leaves()
    return draw(list(parents), dict(zip(leaves, rewards, strict=False)))


def chains(lengths: Sequence[int], rewards: Sequence[float]) -> Tree:
    """Independent trajectories."""
    parents: list[int] = []
    for length in lengths:
        parents += [-1, *range(len(parents), len(parents) + length - 1)]
    return ended(parents, rewards)


def grown(
    parents: Sequence[int], append: bool, seed: int, *, vocabulary: int = VOCABULARY, head: tuple[int, ...] = ()
) -> Tree:
    """A tree with random tokens, outcomes and penalties, and log-probabilities about those of a uniform policy.

    Siblings read the same prompt, as in a rollout. With `append` a prompt extends what its parent read and said;
    without, it is drawn afresh. With a small vocabulary siblings say the same, and rows start alike by chance. All prompts
    start with `head`.
    """
    rng = random.Random(seed)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(1, vocabulary) for _ in range(rng.randint(least, most)))

    leaves = draw(list(parents)).leaves()
    tree = draw(list(parents), {leaf: float(rng.random() < 0.5) for leaf in leaves})
    prompts: dict[int, tuple[int, ...]] = {}
    for index, node in enumerate(tree.nodes):
        if node.parent not in prompts:
            above = tree.nodes[node.parent]
            prompts[node.parent] = ((*above.prompt, *above.completion) if append and node.parent >= 0 else head) + tokens(
                2, 5
            )
        completion = tokens(1, 4)
        tree.nodes[index] = replace(
            node,
            prompt=prompts[node.parent],
            completion=completion,
            logprobs=tuple(rng.gauss(-2.8, 0.9) for _ in completion),
            well_formed=rng.random() > 0.2,
        )
    return tree


def unshared(tree: Tree) -> Tree:
    """The same trajectories with a copy of every shared step: what training one row a leaf sees."""
    copy = Tree(tree.task, tree.observation)
    for number, leaf in enumerate(tree.leaves()):
        for depth, index in enumerate(tree.trajectory(leaf)):
            parent = len(copy.nodes) - 1 if depth else -1
            copy.nodes.append(replace(tree.nodes[index], parent=parent, path=(number, *[0] * depth)))
    return copy


@st.composite
def shapes(draw: st.DrawFn, largest: int = 14) -> list[int]:
    """Parent lists: any number of roots, any forks."""
    return [draw(st.integers(-1, index - 1)) for index in range(draw(st.integers(1, largest)))]
