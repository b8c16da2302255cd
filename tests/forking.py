"""A world small enough to check by hand, and policies for it: what the tests of growing share.

A lock has a number of wheels; each takes one of three symbols and stays as it was set. A wrong one ruins the task unseen:
only the last wheel tells.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from spark_rl.contracts import Branching, Growth
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Completion, Cost, Forest, Observation, Request, Sampling, Task, Tree, TreeShape

SYMBOLS = ("sun", "moon", "star")


@dataclass
class Lock:
    """Opens when every wheel shows the sun; `wait` turns nothing."""

    fork_cost: Literal["cheap", "replay"] = "cheap"
    wheels: int = 0
    turned: tuple[str, ...] = ()

    def _observe(self, *, admissible: bool = True) -> Observation:
        done = len(self.turned) >= self.wheels
        won = done and set(self.turned) == {"sun"}
        return Observation(f"wheel {len(self.turned)}", (*SYMBOLS, "wait"), float(won), done, won, admissible)

    def reset(self, task: Task) -> Observation:
        self.wheels, self.turned = task.data["wheels"], ()
        return self._observe()

    def step(self, action: str) -> Observation:
        if action in SYMBOLS:
            self.turned += (action,)
        return self._observe(admissible=action in (*SYMBOLS, "wait"))

    def fork(self) -> Lock:
        return replace(self)

    def state_key(self) -> str:
        return f"wheel {len(self.turned)}"

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Locks:
    """Its tasks are numbers of wheels."""

    fork_cost: Literal["cheap", "replay"] = "cheap"
    name: str = "lock"

    def tasks(self, level: str, split: str) -> Sequence[Task]:
        return [lock(wheels) for wheels in range(1, 6)]

    def make(self) -> Lock:
        return Lock(self.fork_cost)


def lock(wheels: int) -> Task:
    return Task("lock", f"wheels-{wheels}", f"open the lock of {wheels} wheels", data={"wheels": wheels})


@dataclass
class Hand:
    """Turns to the sun with a probability, else to something else, as each sample's seed says.

    Every completion has two tokens: the first has as many nats of entropy as its step's depth, the second none.
    """

    sun: float = 0.6
    explore: float = 0.3
    entropies: bool = True
    calls: list[int] = field(default_factory=list)
    generated: int = 0
    in_rounds: bool = True

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.calls.append(sum(request.n for request in requests))
        return [[self._answer(request, random.Random(seed)) for seed in request.seeds] for request in requests]

    def _answer(self, request: Request, rng: random.Random) -> Completion:
        mode = "explore" if rng.random() < self.explore else "think"
        action = "sun" if rng.random() < self.sun else rng.choice(("moon", "star", "wait"))
        self.generated += 2
        entropies = (1.0 + len(request.history), 0.0) if self.entropies else None
        text = f"<{mode}>so</{mode}><action>{action}</action>"
        return Completion(text, (1, 2), (-0.5, -0.5), entropies, cost=Cost(generated=2))


def grow(
    wheels: Sequence[int],
    branching: Branching,
    policy: Hand | None = None,
    *,
    world: Locks | None = None,
    seed: int = 0,
    **shape: Any,
) -> Forest:
    """A forest of locks with these numbers of wheels."""
    plan = Growth(TreeShape(**shape), branching, Prompt(instructions="none"), Sampling())
    tasks = [lock(number) for number in wheels]
    return asyncio.run(grow_forest(tasks, world or Locks(), policy or Hand(), plan, seed=seed))


def check_forest(forest: Forest, size: TreeShape) -> None:
    """What holds of every forest, whatever the rule and the world."""
    for index, tree in enumerate(forest):
        leaves = tree.leaves()
        assert size.roots <= len(leaves) == tree.opened <= tree.cap == (size.cap or size.budget)
        assert len({node.path for node in tree.nodes}) == len(tree.nodes)
        for fork in tree.forks:
            assert fork.tree == index
            assert fork.extra > 0
            assert fork.node is None or not (tree.nodes[fork.node].done or tree.nodes[fork.node].depth >= size.horizon)
        for leaf in leaves:
            assert tree.nodes[leaf].done or tree.nodes[leaf].depth == size.horizon
            path = tree.trajectory(leaf)
            assert tree.nodes[path[0]].parent == -1
            assert [tree.nodes[i].depth for i in path] == list(range(1, len(path) + 1))
        for i, node in enumerate(tree.nodes):
            assert -1 <= node.parent < i
            assert node.parent < 0 or not tree.nodes[node.parent].done
    assert sum(tree.opened for tree in forest) <= len(forest) * size.budget
    assert forest.spent.env_steps == sum(len(tree.nodes) for tree in forest)


def check(forest: Forest, policy: Hand, **shape: Any) -> None:
    """What holds of every forest of locks: the rules of all forests, true records, every token counted."""
    check_forest(forest, TreeShape(**shape))
    for tree in forest:
        for leaf in tree.leaves():
            path = tree.trajectory(leaf)
            turned = [tree.nodes[i].action for i in path if tree.nodes[i].action in SYMBOLS]
            assert tree.nodes[leaf].observation == f"wheel {len(turned)}"
            assert tree.nodes[leaf].success == (turned == ["sun"] * tree.task.data["wheels"])
    steps = sum(len(tree.nodes) for tree in forest)
    assert forest.spent.generated == policy.generated == 2 * steps + forest.spent.discarded


def sketch(tree: Tree) -> str:
    """A tree in one line: a trajectory's actions by initial (capital where explored), forks in brackets, ! where it won.

    `S(M.;S!)` is a sun, explored, then two branches.
    """
    below = tree.children()

    def draw(index: int) -> str:
        node = tree.nodes[index]
        letter = {"sun": "s", "moon": "m", "star": "r", "wait": "w"}[node.action]
        letter = letter.upper() if node.mode == "explore" else letter
        children = below[index]
        if not children:
            return letter + ("!" if node.success else ".")
        rest = ";".join(map(draw, children))
        return letter + (rest if len(children) == 1 else f"({rest})")

    return " ".join(map(draw, below[-1]))
