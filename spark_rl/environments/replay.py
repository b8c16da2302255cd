"""Replays: reach a state again by its actions and compare the observations, or write a record of an episode.

Invariant: a replay whose observations differ from the record raises an error; it never goes on in another state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NotRequired, TypedDict

from spark_rl.contracts import Environment, World
from spark_rl.errors import ReplayMismatch, UsageError
from spark_rl.types import Observation, Task

__all__ = ["Record", "replay", "trace", "walk"]

_SHOWN = 120
"""Most characters of an observation in an error message."""


class Record(TypedDict):
    """One step of an episode as JSON values."""

    action: str | None
    """None for the reset."""
    observation: str
    """Text of the observation after the action."""
    actions: list[str]
    reward: float
    done: bool
    success: bool
    progress: NotRequired[dict[str, float]]
    """Only where the environment measures progress."""


def replay(environment: Environment, task: Task, actions: Sequence[str], expected: Sequence[str]) -> Observation:
    """Reset to the task, take the actions, and compare every observation with the recorded one.

    Args:
        environment: is reset, and afterwards in the state to which the actions lead.
        task: the recorded task.
        actions: the recorded actions from the start, oldest first.
        expected: the recorded texts: that of the reset, then one for each action.

    Returns:
        The last observation.

    Raises:
        ReplayMismatch: an observation differs; the message names task, step and both texts.
        UsageError: `expected` does not have exactly one text more than there are actions.
    """
    if len(expected) != len(actions) + 1:
        raise UsageError(f"replay of {task.id}: {len(actions)} actions need {len(actions) + 1} texts, not {len(expected)}")
    observation = Observation("")
    answers = walk(environment, task, actions)
    for step, (action, text, observation) in enumerate(zip(("reset", *actions), expected, answers, strict=True)):
        _compare(task, step, action, text, observation.text)
    return observation


def walk(environment: Environment, task: Task, actions: Iterable[str]) -> Iterator[Observation]:
    """The observations after a reset and after each action, one by one."""
    yield environment.reset(task)
    for action in actions:
        yield environment.step(action)


def _compare(task: Task, step: int, action: str, expected: str, got: str) -> None:
    if got != expected:
        start = next(
            (i for i, (x, y) in enumerate(zip(expected, got, strict=False)) if x != y), min(len(expected), len(got))
        )
        start = max(0, start - _SHOWN // 2)
        raise ReplayMismatch(
            f'replay of task {task.id} differs at step {step} ("{action}"): the record says '
            f'"{expected[start : start + _SHOWN]}", the environment says "{got[start : start + _SHOWN]}"; '
            "is the environment deterministic, and has it the options of the recording?"
        )


def trace(world: World, task: Task, actions: Iterable[str]) -> list[Record]:
    """The record of an episode in a new environment; actions after the end are not taken.

    Returns:
        A record of the reset, then one for each action.
    """
    environment = world.make()
    try:
        steps = [_record(None, environment.reset(task))]
        for action in actions:
            if steps[-1]["done"]:
                break
            steps.append(_record(action, environment.step(action)))
        return steps
    finally:
        environment.close()


def _record(action: str | None, observation: Observation) -> Record:
    record: Record = {
        "action": action,
        "observation": observation.text,
        "actions": list(observation.actions),
        "reward": observation.reward,
        "done": observation.done,
        "success": observation.success,
    }
    if observation.progress:
        record["progress"] = dict(observation.progress)
    return record
