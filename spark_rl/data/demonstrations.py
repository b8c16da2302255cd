"""Demonstrations: an expert plays through the very rollout that RL uses; what wins is kept, one step a line.

Invariants
----------
* Every demonstration was won in the environment, within the horizon.
* A line's prompt is what RL renders for that state, message for message; with a tokenizer, id for id (`tokenize`).
* Only tasks of the training split of the named level are used.

A demonstration in memory is a `Tree` with one trajectory, so the cold start packs it as RL packs its rows. Steps taken
wrong on purpose (`slips`) are shown, since what follows teaches how to recover, but not learnt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from spark_rl.branching.chains import Chains
from spark_rl.environments.base import World
from spark_rl.errors import StorageError, UsageError
from spark_rl.files import write_bytes
from spark_rl.growth import Growth, Sampling, TreeShape
from spark_rl.policies.scripted import Slips
from spark_rl.prompting import Encoder, Prompt, parse
from spark_rl.rollout import grow_forest
from spark_rl.seeding import derive
from spark_rl.types import Node, Task, Tree

__all__ = ["Demonstration", "collect", "load", "save", "texts", "tokenize"]

BATCH = 32
"""Tasks played side by side: no more than ALFWorld keeps engines for, since a game that lost its engine is loaded again."""
ATTEMPTS = 4
"""Passes over the training split before giving up on the count asked for."""


@dataclass(frozen=True)
class Demonstration:
    """One successful trajectory."""

    tree: Tree
    slips: frozenset[int] = frozenset()
    """Nodes that are not to be learnt."""


async def collect(
    world: World,
    count: int,
    *,
    level: str,
    horizon: int,
    prompt: Prompt,
    seed: int = 0,
    tags: str = "sparse",
    slips: float = 0.0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Demonstration]:
    """Let the world's expert play training tasks until `count` were won; each step is a slip with the given chance.

    Raises:
        UsageError: the world has no expert, or it does not win often enough.
    """
    expert = getattr(world, "expert", None)
    if expert is None:
        raise UsageError(
            f"{world.name} has no expert: set cold_start.demonstrations 0 and give a model that is cold-started"
        )
    growth = Growth(TreeShape(budget=1, roots=1, horizon=horizon), Chains(), prompt, Sampling(1.0))
    tasks = list(world.tasks(level, "train"))
    won: list[Demonstration] = []
    choose: Callable[[list[Task], int], Iterable[Task]] | None = getattr(world, "demonstrable", None)
    for attempt in range(ATTEMPTS):
        drawn = sorted(tasks, key=lambda task, attempt=attempt: derive(seed, attempt, task.id, "demonstrations"))
        order = iter(choose(drawn, horizon) if choose is not None else drawn)
        while len(won) < count and (batch := list(islice(order, min(BATCH, count - len(won))))):
            policy = Slips(expert(tags), slips)
            forest = await grow_forest(batch, world, policy, growth, seed=seed, iteration=attempt)
            for tree in forest:
                if tree.nodes[-1].success:
                    slipped = [(tree.task.id, node.path) in policy.slipped for node in tree.nodes]
                    wrong = frozenset(i for i, slip in enumerate(slipped) if slip)
                    won.append(Demonstration(tree, wrong))
            advance(min(len(won), count))
        if len(won) >= count:
            return won[:count]
    if len(won) < count:
        raise UsageError(
            f"the expert of {world.name} won {len(won)} of {ATTEMPTS * len(tasks)} episodes within {horizon} steps, "
            f"fewer than the {count} demonstrations asked for: ask for fewer or raise tree.horizon"
        )
    return won[:count]


def save(demonstrations: Sequence[Demonstration], path: Path, prompt: Prompt) -> None:
    """Write demonstrations, one step a line, in one go."""
    lines = [json.dumps(record) for index, shown in enumerate(demonstrations) for record in _records(index, shown, prompt)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def _records(index: int, shown: Demonstration, prompt: Prompt) -> Iterable[dict[str, Any]]:
    tree, task = shown.tree, shown.tree.task
    for step, node in enumerate(tree.nodes):
        yield {
            "format": "spark-rl-demonstration/1",
            "environment": task.environment,
            "task": task.id,
            "kind": task.kind,
            "instruction": task.instruction,
            "trajectory": index,
            "step": step + 1,
            "prompt": list(prompt.render(tree, node.parent, None).messages),
            "completion": node.text,
            "slip": step in shown.slips,
            "actions": tree.nodes[step - 1].actions if step else tree.actions,
            "state_key": node.state_key,
            "observation": tree.nodes[step - 1].observation if step else tree.observation,
            "next_observation": node.observation,
            "admissible": node.admissible,
            "success": tree.nodes[-1].success,
            "steps": len(tree.nodes),
        }


def load(path: Path) -> list[Demonstration]:
    """Read demonstrations back, without token ids.

    Raises:
        StorageError: a line cannot be read; the message names it.
    """
    records: list[dict[str, Any]] = []
    try:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise StorageError(f"{path} line {number} is not JSON ({error}); write the file again") from error
        return [_read(list(steps)) for _, steps in groupby(records, key=lambda record: record["trajectory"])]
    except (OSError, KeyError) as error:
        raise StorageError(f"{path} is no readable demonstration file ({error!r})") from error


def _read(records: list[dict[str, Any]]) -> Demonstration:
    first = records[0]
    task = Task(first["environment"], first["task"], first["instruction"], first["kind"])
    tree = Tree(task, first["observation"], tuple(first["actions"]), opened=1)
    for index, record in enumerate(records):
        parsed = parse(record["completion"])
        last = index == len(records) - 1
        following = () if last else tuple(records[index + 1]["actions"])
        tree.nodes.append(
            Node(
                parent=index - 1,
                path=(0,) * (index + 1),
                prompt=(),
                completion=(),
                logprobs=(),
                text=record["completion"],
                mode=parsed.mode,
                reasoning=parsed.reasoning,
                action=parsed.action,
                well_formed=parsed.well_formed,
                admissible=record["admissible"],
                state_key=record["state_key"],
                observation=record["next_observation"],
                actions=following,
                reward=float(last and record["success"]),
                done=last,
                success=last and record["success"],
            )
        )
    return Demonstration(tree, frozenset(i for i, record in enumerate(records) if record["slip"]))


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
