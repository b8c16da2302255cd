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

__all__ = ["as_demonstrations", "collect", "texts", "tokenize"]

BATCH = 32
"""Number of tasks that are played at once: at most ALFWorld's `engines`, since a game that loses its engine loads again."""
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
        advance: receives the number of demonstrations so far.

    Raises:
        UsageError: the world has no expert, or the expert does not win often enough.
    """
    if not isinstance(world, Demonstrates):
        raise UsageError(
            f"{world.name} has no expert: set cold_start.demonstrations 0 and give a model that is cold-started"
        )
    growth = Growth(TreeShape(budget=1, roots=1, horizon=horizon), Chains(), prompt, Sampling(1.0))
    solver = world.solver if isinstance(world, SeveralExperts) else "expert"
    of_expert = origin(world, level, "expert", f"{world.name} {solver}")
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
                    won.append(Demonstration(tree, wrong, of_expert))
            advance(min(len(won), count))
        if len(won) >= count:
            return won[:count]
    if len(won) < count:
        raise UsageError(
            f"the expert of {world.name} won {len(won)} of {ATTEMPTS * len(tasks)} episodes within {horizon} steps, "
            f"fewer than the {count} demonstrations that it should give: ask for fewer or raise tree.horizon"
        )
    return won[:count]


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
