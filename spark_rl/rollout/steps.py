"""A step of a tree: the request to the policy, the action in the environment, and the node that records both.

Invariant: a step changes only its own copy of the state. A node records exactly the sampled token ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from spark_rl.common.packed import floats, ids
from spark_rl.common.seeding import derive
from spark_rl.contracts import Encoder, Environment, Growth, OutOfProcess
from spark_rl.errors import PolicyFailure
from spark_rl.types import Completion, Node, Observation, Parsed, Request, Tree

__all__ = [
    "Asker",
    "Name",
    "Open",
    "Taken",
    "accepted",
    "carry_out",
    "excluded",
    "overlapping",
    "read",
    "record",
    "request_of",
]

Name = tuple[int, int, str, int]
"""Run seed, iteration, task id, and how many trees of that task came before. A tree's seeds are derived from it."""
T = TypeVar("T")


class Asker(Protocol):
    """The settings that a request depends on besides its tree."""

    growth: Growth
    encoder: Encoder | None


@dataclass
class Open:
    """A state to continue from, `count` times."""

    parent: int
    """The step that led to it; -1 at the start."""
    count: int
    state: Environment
    observation: Observation
    exclude: bool = False
    """Whether actions that were taken in this state are drawn again."""
    rank: int = 0
    """Its place among the forks that all trees open at once; 0 where the order of the trees decides."""


@dataclass(frozen=True)
class Taken:
    """Actions as they were carried out, each in its own copy of the state."""

    key: str
    """Key of the state before the actions."""
    states: list[Environment]
    observations: list[Observation]
    shown: list[tuple[str, ...]]
    """The admissible actions that the next prompts list."""


async def overlapping(environment: Environment, work: Callable[[], T]) -> T:
    """The result of `work`. It runs in a thread where the environment waits for another process, so that trees overlap."""
    if isinstance(environment, OutOfProcess) and environment.out_of_process:
        return await asyncio.to_thread(work)
    return work()


def request_of(tree: Tree, index: int, name: Name, item: Open, first: int, asker: Asker) -> Request:
    """The request to the policy at an open state.

    Args:
        tree: the tree so far.
        index: its place in the forest.
        name: the tree's name, from which the seeds are derived.
        item: the open state.
        first: how many children of the state were requested before.
        asker: the settings of growth, and the encoder.
    """
    growth = asker.growth
    rendered = growth.prompt.render(tree, item.parent, asker.encoder)
    above = tree.nodes[item.parent].path if item.parent >= 0 else ()
    paths = [(*above, first + i) for i in range(item.count)]
    return Request(
        task=tree.task,
        messages=rendered.messages,
        observation=item.observation,
        seeds=tuple(derive(*name, path) for path in paths),
        prompt=rendered.ids,
        parent=(index, *above),
        children=tuple((index, *path) for path in paths),
        history=tuple(tree.nodes[i].action for i in tree.trajectory(item.parent)),
        truncated=rendered.truncated,
        max_tokens=growth.sampling.max_tokens,
        temperature=growth.sampling.temperature,
    )


def excluded(tree: Tree, items: Sequence[Open]) -> dict[int, set[str]]:
    """Actions taken in the states of the continuations (by position) that exclude them; one set for each state."""
    actions: dict[int, set[str]] = {}
    for item in items:
        if item.exclude and item.parent not in actions:
            actions[item.parent] = {node.action for node in tree.nodes if node.parent == item.parent}
    return {index: actions[item.parent] for index, item in enumerate(items) if item.exclude}


def accepted(answer: list[Completion], state: Environment) -> list[Completion]:
    """Return the completions for a state if none was refused; otherwise close the state.

    Raises:
        PolicyFailure: a completion was refused.
    """
    for completion in answer:
        if completion.refused:
            state.close()
            raise PolicyFailure(completion.refused)
    return answer


def carry_out(item: Open, actions: Sequence[str], *, show: bool) -> Taken:
    """Take each action in its own copy of a state; where copies are expensive, the state itself serves as the last copy.

    Args:
        item: the open state.
        actions: one for each continuation.
        show: whether prompts list the admissible actions.
    """
    cheap = item.state.fork_cost == "cheap"
    states = [item.state.fork() for _ in range(len(actions) if cheap else len(actions) - 1)]
    states += [] if cheap else [item.state]
    key = states[0].state_key()
    observations = [state.step(action) for state, action in zip(states, actions, strict=True)]
    return Taken(key, states, observations, [seen.shown if show else () for seen in observations])


def read(tree: Tree, item: Open, request: Request) -> Sequence[int]:
    """The token ids of a request, packed: what the step before it has read is not held once more."""
    return ids(request.prompt or (), tree.nodes[item.parent].prompt if item.parent >= 0 else ())


def record(
    item: Open,
    request: Request,
    prompt: Sequence[int],
    number: int,
    completion: Completion,
    parsed: Parsed,
    taken: Taken,
) -> Node:
    """The node of a step.

    Args:
        item: the state before the step.
        request: the request to the policy.
        prompt: the request's prompt, packed (`read`).
        number: index of the step among the request's samples.
        completion: the sampled completion.
        parsed: the completion, parsed.
        taken: the results of the actions of all samples.
    """
    seen = taken.observations[number]
    return Node(
        parent=item.parent,
        path=request.children[number][1:],
        prompt=prompt,
        completion=ids(completion.ids or ()),
        logprobs=floats(completion.logprobs or ()),
        text=completion.text,
        mode=parsed.mode,
        reasoning=parsed.reasoning,
        action=parsed.action,
        well_formed=parsed.well_formed,
        admissible=seen.admissible,
        state_key=taken.key,
        observation=seen.text,
        actions=taken.shown[number],
        reward=seen.reward,
        done=seen.done,
        success=seen.success,
        truncated=request.truncated,
        entropies=floats(completion.entropies or ()),
        progress=seen.progress,
        version=completion.version,
    )
