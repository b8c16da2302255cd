"""NumberLine: go up or down a line of numbers, one at a time, to the target.

Invariants
----------
* The ends of the line are walls: a step beyond them is refused. Only the rollout limits the number of steps.
* No problem (start, target) is in two of train, dev and test.

| level | train | dev, test |
|---|---|---|
| L0 | four fifths of the numbers as targets | the same targets from other starts |
| L1 | as L0 | numbers as targets that no training task has |
| L2 | as L0 | a line half as long again, with start or target beyond the end of the training line |

A task's id is its problem: `3-8/20` goes from 3 to 8 on a line that ends at 20.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from spark_rl.common.seeding import derive
from spark_rl.environments.games import GameEnvironment, GameExpert
from spark_rl.environments.searching import Decision
from spark_rl.environments.splits import check_names, split_of
from spark_rl.errors import UsageError, at_least
from spark_rl.types import Task

__all__ = ["Line", "NumberLine", "decide"]

_STEPS = {"+": 1, "-": -1}


@dataclass(frozen=True, slots=True)
class Line:
    """A position of the game."""

    at: int
    target: int
    end: int
    """Last number of the line; the first is 0."""

    @property
    def won(self) -> bool:
        """Whether the target is reached."""
        return self.at == self.target

    @property
    def done(self) -> bool:
        """Whether the target is reached; only this ends the game."""
        return self.won

    @property
    def reward(self) -> float:
        """1 at the target, else 0."""
        return float(self.won)

    idle = 0.0

    @property
    def progress(self) -> Mapping[str, float]:
        """Empty: this game measures only the outcome."""
        return {}

    @property
    def text(self) -> str:
        """The target and the current number."""
        return f"Target: {self.target}. Current: {self.at}."

    def actions(self) -> tuple[str, ...]:
        """`+` and `-`, without a step beyond an end of the line."""
        return tuple(action for action in _STEPS if self.after(action) is not None)

    def after(self, action: str) -> Line | None:
        """The line after one step up or down; None for an action that is not possible."""
        step = _STEPS.get(action)
        if step is None or self.done or not 0 <= self.at + step <= self.end:
            return None
        return Line(self.at + step, self.target, self.end)


def decide(line: Line, _: random.Random) -> Decision:
    """The step towards the target, which is never a choice."""
    up = line.at < line.target
    return Decision("+" if up else "-", f"{line.at} is {'below' if up else 'above'} {line.target}.")


@dataclass(frozen=True)
class NumberLine:
    """Go up or down a line of numbers, one at a time, to the target."""

    end: int = 20
    """Last number of the line; the line of L2 is half as long again. The original has 5."""
    train_tasks: int = 2000
    """Most tasks of the training split."""
    dev_tasks: int = 60
    test_tasks: int = 120

    def __post_init__(self) -> None:
        if not 5 <= self.end <= 999:
            raise UsageError(f"env.end is {self.end}: it must lie between 5 and 999")
        at_least("env", self, train_tasks=1, dev_tasks=1, test_tasks=1)

    @property
    def name(self) -> str:
        """`numberline`."""
        return "numberline"

    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        """The tasks of a level and split, in a fixed shuffled order; all levels train on those of L0.

        Raises:
            UsageError: unknown level or split, or the line is too short for any task.
        """
        check_names(level, split)
        tasks = _tasks(self, "L0" if split == "train" else level, split)
        if not tasks:
            raise UsageError(f"env.end is {self.end}, which leaves {level}/{split} nothing to ask: make the line longer")
        return tasks[: int(getattr(self, f"{split}_tasks"))]

    def task(self, task_id: str) -> Task:
        """The task with this id (`3-8/20`), which need not be in any level.

        Raises:
            UsageError: there is no such task.
        """
        pair, _, end = task_id.partition("/")
        at, _, target = pair.partition("-")
        if all(word.isdecimal() and len(word) <= 4 and str(int(word)) == word for word in (at, target, end)):
            line = Line(int(at), int(target), int(end))
            if line.at != line.target and max(line.at, line.target) <= line.end:
                return Task(self.name, task_id, f"get to {target} on a line from 0 to {end} with + and -")
        raise UsageError(f'numberline has no task "{task_id}"; `spark-rl env tasks numberline` lists some')

    def make(self) -> GameEnvironment[Line]:
        """A new environment."""
        return GameEnvironment(self.start)

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> GameExpert[Line]:
        """A policy that goes straight to the target; it never explores, because no step is an open choice."""
        return GameExpert(self.start, decide, tags)

    def start(self, task: Task) -> Line:
        """The line of a task.

        Raises:
            UsageError: the task is not from this world.
        """
        if task.environment != self.name:
            raise UsageError(f"task {task.id} of {task.environment} is none of numberline's")
        pair, _, end = self.task(task.id).id.partition("/")
        at, _, target = pair.partition("-")
        return Line(int(at), int(target), int(end))


def _problems(world: NumberLine, level: str) -> Iterator[tuple[int, int, int]]:
    """All problems of a level, each as start, target and end of the line."""
    end = world.end * 3 // 2 if level == "L2" else world.end
    for at in range(end + 1):
        for target in range(end + 1):
            withheld = derive("numberline", "target", target) % 5 == 0
            eligible = max(at, target) > world.end if level == "L2" else withheld == (level == "L1")
            if eligible and at != target:
                yield at, target, end


@lru_cache(maxsize=64)
def _tasks(world: NumberLine, level: str, split: str) -> tuple[Task, ...]:
    ids = [
        f"{at}-{target}/{end}"
        for at, target, end in _problems(world, level)
        if split_of("numberline", at, target, trained=level == "L0") == split
    ]
    return tuple(world.task(id) for id in sorted(ids, key=lambda id: derive("numberline", "place", id)))
