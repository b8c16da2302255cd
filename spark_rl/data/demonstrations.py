"""Demonstrations: an expert plays episodes by the rollout of RL, and the successful ones are collected.

Invariants
----------
* Every collected demonstration was won in the environment, within the horizon, on a training task of its level.
* `tokenize` gives a demonstration the token ids that RL would feed to the model.

A demonstration in memory is a `Tree` with one trajectory, so the cold start packs it as RL packs its rows. Deliberate
mistakes (`slips`) are in the prompts, since the steps after them teach how to recover, but are not trained on.
`data.format` is the file format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import islice
from typing import Literal

from spark_rl.common.helpers import cores
from spark_rl.common.seeding import derive
from spark_rl.contracts import Demonstrates, Encoder, SelectsTasks, SeveralExperts, World
from spark_rl.data.batches import Batch, Expert, played
from spark_rl.data.format import Demonstration, Origin, origin
from spark_rl.errors import UsageError
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Task, Tree

__all__ = ["as_demonstrations", "collect", "texts", "tokenize"]

BATCH = 8
"""Number of tasks that are played at once, and by one process."""
ATTEMPTS = 4
"""Most passes over the training split to collect the requested number of demonstrations."""


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
    processes: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Demonstration]:
    """Let the world's expert play training tasks until it has won `count` episodes.

    Args:
        world: the world.
        count: number of demonstrations.
        level: level whose training split is played.
        horizon: most steps of an episode.
        prompt: how prompts are written.
        seed: seed of tasks, choices and slips.
        shown: number of different tasks to play, drawn by the seed; 0 means all.
        tags: how often the expert explores.
        slips: probability that a step is a slip.
        processes: most processes that play; 0: as many as there are cores. The demonstrations do not depend on it.
        advance: receives the number of demonstrations so far.

    Raises:
        UsageError: the world has no expert, or the expert does not win often enough.
        EnvironmentFailure: the environment failed in every episode of a batch, or the processes that play die.
    """
    if not isinstance(world, Demonstrates):
        raise UsageError(
            f"{world.name} has no expert: set cold_start.demonstrations 0 and give a model that is cold-started"
        )
    solver = world.solver if isinstance(world, SeveralExperts) else "expert"
    of_expert = origin(world, level, "expert", f"{world.name} {solver}")
    tasks = sorted(world.tasks(level, "train"), key=lambda task: derive(seed, task.id, "shown"))[: shown or None]
    expert = Expert(world, of_expert, horizon, prompt, seed, tags, slips)
    batches = _batches(world, tasks, min(BATCH, max(count, 1)), horizon, seed)
    won: list[Demonstration] = []
    async with aclosing(played(expert, batches, lambda: count - len(won), processes or cores())) as found:
        async for some in found:
            won += some
            advance(min(len(won), count))
            if len(won) >= count:
                return won[:count]
    raise UsageError(
        f"the expert of {world.name} won {len(won)} of {ATTEMPTS * len(tasks)} episodes within {horizon} steps, "
        f"fewer than the {count} demonstrations that it should give: ask for fewer or raise tree.horizon"
    )


def _batches(world: World, tasks: Sequence[Task], size: int, horizon: int, seed: int) -> Iterator[Batch]:
    """The tasks in batches, `ATTEMPTS` times in another order."""
    for attempt in range(ATTEMPTS):
        drawn = sorted(tasks, key=lambda task, attempt=attempt: derive(seed, attempt, task.id, "demonstrations"))
        order = iter(world.demonstrable(drawn, horizon) if isinstance(world, SelectsTasks) else drawn)
        while batch := list(islice(order, size)):
            yield attempt, batch


def as_demonstrations(trees: Iterable[Tree], origin: Origin) -> list[Demonstration]:
    """A demonstration for each of a policy's trajectories, where malformed and refused steps count as slips."""
    return [
        Demonstration(
            tree, frozenset(i for i, node in enumerate(tree.nodes) if not (node.well_formed and node.admissible)), origin
        )
        for tree in trees
    ]


def tokenize(tree: Tree, prompt: Prompt, encoder: Encoder) -> Tree:
    """The demonstration with token ids: the prompts as RL would feed them, and the expert's completions."""
    tokenized = replace(tree, nodes=[])
    for node in tree.nodes:
        rendered = prompt.render(tokenized, node.parent, encoder)
        ids = encoder.completion(node.text)
        completion = {"completion": ids, "logprobs": (0.0,) * len(ids)}
        tokenized.nodes.append(replace(node, prompt=rendered.ids or (), truncated=rendered.truncated, **completion))
    return tokenized


def texts(demonstrations: Iterable[Demonstration], prompt: Prompt) -> Iterable[str]:
    """The texts from which a tokenizer is trained: new messages of prompts, and all completions and actions."""
    for tree in (demonstration.tree for demonstration in demonstrations):
        for node in tree.nodes:
            yield node.text
            yield from node.actions
            yield from (message["content"] for message in prompt.render(tree, node.parent, None).messages[-1:])
        yield from tree.actions
