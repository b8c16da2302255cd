"""Demonstrations: an expert plays through the very rollout that RL uses, and what wins is kept.

Invariants
----------
* Every demonstration that is collected was won in the environment, within the horizon, on a training task of its level.
* With a tokenizer a demonstration has the token ids that RL would feed (`tokenize`).

A demonstration in memory is a `Tree` with one trajectory, so the cold start packs it as RL packs its rows. Steps taken
wrong (`slips`) are shown, since what follows teaches how to recover, but not learnt. `data.format` is how they are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Literal

from spark_rl.branching.chains import Chains
from spark_rl.common.seeding import derive
from spark_rl.contracts import Demonstrates, Encoder, Growth, SelectsTasks, SeveralExperts, World
from spark_rl.data.format import Demonstration, Origin, origin
from spark_rl.errors import UsageError
from spark_rl.policies.four_modes import in_modes
from spark_rl.policies.scripted import Slips
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Sampling, Tree, TreeShape

__all__ = ["collect", "kept", "texts", "tokenize"]

BATCH = 32
"""Tasks played side by side: no more than ALFWorld keeps engines for, since a game that lost its engine is loaded again."""
ATTEMPTS = 4
"""Passes over the training split before giving up on the count asked for."""


async def collect(
    world: World,
    count: int,
    *,
    level: str,
    horizon: int,
    prompt: Prompt,
    seed: int = 0,
    shown: int = 0,
    tags: Literal["sparse", "dense"] = "sparse",
    slips: float = 0.0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Demonstration]:
    """Let the world's expert play training tasks until `count` were won; each step is a slip with the given chance.

    Only `shown` of the tasks are played, drawn by the seed; 0: all.

    Raises:
        UsageError: the world has no expert, or it does not win often enough.
    """
    if not isinstance(world, Demonstrates):
        raise UsageError(
            f"{world.name} has no expert: set cold_start.demonstrations 0 and give a model that is cold-started"
        )
    growth = Growth(TreeShape(budget=1, roots=1, horizon=horizon), Chains(), prompt, Sampling(1.0))
    solver = world.solver if isinstance(world, SeveralExperts) else "expert"
    come_from = origin(world, level, "expert", f"{world.name} {solver}")
    tasks = sorted(world.tasks(level, "train"), key=lambda task: derive(seed, task.id, "shown"))[: shown or None]
    won: list[Demonstration] = []
    for attempt in range(ATTEMPTS):
        drawn = sorted(tasks, key=lambda task, attempt=attempt: derive(seed, attempt, task.id, "demonstrations"))
        order = iter(world.demonstrable(drawn, horizon) if isinstance(world, SelectsTasks) else drawn)
        while len(won) < count and (batch := list(islice(order, min(BATCH, count - len(won))))):
            policy = Slips(world.expert(tags), slips)
            forest = await grow_forest(batch, world, in_modes(policy, prompt, world), growth, seed=seed, iteration=attempt)
            for tree in forest:
                if tree.nodes[-1].success:
                    slipped = [(tree.task.id, node.path) in policy.slipped for node in tree.nodes]
                    wrong = frozenset(i for i, slip in enumerate(slipped) if slip)
                    won.append(Demonstration(tree, wrong, come_from))
            advance(min(len(won), count))
        if len(won) >= count:
            return won[:count]
    if len(won) < count:
        raise UsageError(
            f"the expert of {world.name} won {len(won)} of {ATTEMPTS * len(tasks)} episodes within {horizon} steps, "
            f"fewer than the {count} demonstrations asked for: ask for fewer or raise tree.horizon"
        )
    return won[:count]


def kept(trees: Iterable[Tree], come_from: Origin) -> list[Demonstration]:
    """What a policy played, one demonstration a tree; its malformed and refused steps are shown and not to be learnt."""
    return [
        Demonstration(
            tree, frozenset(i for i, node in enumerate(tree.nodes) if not (node.well_formed and node.admissible)), come_from
        )
        for tree in trees
    ]


def tokenize(tree: Tree, prompt: Prompt, encoder: Encoder) -> Tree:
    """The demonstration with the token ids that RL would feed and that the expert's answer has."""
    filled = replace(tree, nodes=[])
    for node in tree.nodes:
        rendered = prompt.render(filled, node.parent, encoder)
        ids = encoder.completion(node.text)
        said = {"completion": ids, "logprobs": (0.0,) * len(ids)}
        filled.nodes.append(replace(node, prompt=rendered.ids or (), truncated=rendered.truncated, **said))
    return filled


def texts(demonstrations: Iterable[Demonstration], prompt: Prompt) -> Iterable[str]:
    """The text a tokenizer is learnt from: what each demonstration's prompts add, and every answer and action."""
    for tree in (shown.tree for shown in demonstrations):
        for node in tree.nodes:
            yield node.text
            yield from node.actions
            yield from (message["content"] for message in prompt.render(tree, node.parent, None).messages[-1:])
        yield from tree.actions
