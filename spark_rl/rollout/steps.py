"""A step of a tree: what the policy is asked, what the environment answers, and the node that records both.

Invariant: a step changes nothing but its own copy of the state. What is recorded is what was sampled, id for id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from spark_rl.common.seeding import derive
from spark_rl.contracts import Encoder, Environment, Growth, OutOfProcess
from spark_rl.errors import PolicyFailure
from spark_rl.types import Completion, Node, Observation, Parsed, Request, Tree

__all__ = ["Asker", "Name", "Open", "Taken", "accepted", "carry_out", "excluded", "overlapping", "record", "request_of"]

Name = tuple[int, int, str, int]
"""Run seed, iteration, task id, and how many trees of that task came before: what a tree's seeds are derived from."""
T = TypeVar("T")


class Asker(Protocol):
    """What a request depends on besides its tree."""

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
    """Its place among what all trees open at once; 0 for the place of its tree."""


@dataclass(frozen=True)
class Taken:
    """Actions as they were carried out, each in its own copy of the state."""

    key: str
    """Key of the state before the actions."""
    states: list[Environment]
    observations: list[Observation]
    shown: list[tuple[str, ...]]
    """What the next prompts show of admissible actions."""


async def overlapping(environment: Environment, work: Callable[[], T]) -> T:
    """What calls of an environment answer; in a thread where they wait for another process, so that trees overlap."""
    if isinstance(environment, OutOfProcess) and environment.out_of_process:
        return await asyncio.to_thread(work)
    return work()


def request_of(tree: Tree, index: int, name: Name, item: Open, first: int, asker: Asker) -> Request:
    """What the policy is asked at an open state.

    Args:
        tree: the tree so far.
        index: its place in the forest.
        name: what its seeds are derived from.
        item: the open state.
        first: how many children of the state were asked for before.
        asker: prompt, sampling, and what turns messages into token ids.
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
    """Actions taken in the states of the continuations (by position) that exclude them; one set a state."""
    found: dict[int, set[str]] = {}
    for item in items:
        if item.exclude and item.parent not in found:
            found[item.parent] = {node.action for node in tree.nodes if node.parent == item.parent}
    return {index: found[item.parent] for index, item in enumerate(items) if item.exclude}


def accepted(answer: list[Completion], state: Environment) -> list[Completion]:
    """The completions for a state, none of them refused; else the state is closed.

    Raises:
        PolicyFailure: one was refused.
    """
    for completion in answer:
        if completion.refused:
            state.close()
            raise PolicyFailure(completion.refused)
    return answer


def carry_out(item: Open, actions: Sequence[str], *, show: bool) -> Taken:
    """Take each action in its own copy of a state; the state itself is the last copy where copies are dear.

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


def record(
    item: Open,
    request: Request,
    number: int,
    completion: Completion,
    parsed: Parsed,
    taken: Taken,
) -> Node:
    """The node of a step.

    Args:
        item: the state that it was taken in.
        request: what was asked.
        number: which of the request's samples it is.
        completion: what was sampled.
        parsed: how that is read.
        taken: what came of the actions of all samples.
    """
    seen = taken.observations[number]
    return Node(
        parent=item.parent,
        path=request.children[number][1:],
        prompt=request.prompt or (),
        completion=completion.ids or (),
        logprobs=completion.logprobs or (),
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
        entropies=completion.entropies or (),
        progress=seen.progress,
        version=completion.version,
    )
