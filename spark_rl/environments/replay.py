"""Reaching a state again by its actions, checked, and writing down what an environment answers.

Invariant: a replay that differs from the record in one observation is an error, never a different state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from spark_rl.contracts import Environment, World
from spark_rl.errors import ReplayMismatch, UsageError
from spark_rl.types import Observation, Task

__all__ = ["replay", "trace", "walk"]

_SHOWN = 120
"""Most characters of an observation in an error message."""


def replay(environment: Environment, task: Task, actions: Sequence[str], expected: Sequence[str]) -> Observation:
    """Reset to the task, take the actions, and compare every observation with the recorded one.

    Args:
        environment: is reset; left in the state that the actions lead to.
        task: what was played.
        actions: the prefix, oldest first.
        expected: the recorded observation texts: the first one, then one an action.

    Returns:
        The last observation.

    Raises:
        ReplayMismatch: an observation differs; the message names task, step and both texts.
        UsageError: `expected` is not one longer than `actions`.
    """
    if len(expected) != len(actions) + 1:
        raise UsageError(f"replay of {task.id}: {len(actions)} actions need {len(actions) + 1} texts, not {len(expected)}")
    observation = Observation("")
    answers = walk(environment, task, actions)
    for step, (action, text, observation) in enumerate(zip(("reset", *actions), expected, answers, strict=True)):
        _compare(task, step, action, text, observation.text)
    return observation


def walk(environment: Environment, task: Task, actions: Iterable[str]) -> Iterator[Observation]:
    """What the environment answers to a reset and to each action, one after the other."""
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


def trace(world: World, task: Task, actions: Iterable[str]) -> list[dict[str, Any]]:
    """What a fresh environment answers to the actions, as JSON values; actions after the end are not taken.

    Returns:
        One dictionary a state, `{"action", "observation", "actions", "reward", "done", "success"}`, that after the reset
        first, with action None.
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


def _record(action: str | None, observation: Observation) -> dict[str, Any]:
    return {
        "action": action,
        "observation": observation.text,
        "actions": list(observation.actions),
        "reward": observation.reward,
        "done": observation.done,
        "success": observation.success,
        **({"progress": dict(observation.progress)} if observation.progress else {}),
    }
