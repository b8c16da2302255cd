"""Refuse to train on test tasks: by task id, and by type for the held-out types of L2.

Invariant: no trajectory is trained on whose task is not in the training split of the level.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spark_rl.contracts import World
from spark_rl.data.format import Demonstration, read_records
from spark_rl.environments.splits import LEVELS
from spark_rl.errors import UsageError
from spark_rl.runs.run import Run
from spark_rl.types import Task

__all__ = ["Guard", "refuse_held_out", "refuse_leaks"]


@dataclass(frozen=True)
class Guard:
    """The tasks that a level may be trained on."""

    world: World
    level: str

    @cached_property
    def allowed(self) -> frozenset[str]:
        """Ids of the training split."""
        return frozenset(task.id for task in self.world.tasks(self.level, "train"))

    @cached_property
    def tested(self) -> dict[str, str]:
        """Ids of all test tasks, with the lowest level of each."""
        levels: dict[str, str] = {}
        for level in reversed(LEVELS):
            with suppress(UsageError):  # a world need not have every level
                levels |= {task.id: level for task in self.world.tasks(level, "test")}
        return levels

    @cached_property
    def held_out(self) -> frozenset[str]:
        """Types that the level's test split has and its training split lacks."""
        return _held_out(self.world, self.level)

    def objection(self, task: Task) -> str:
        """Why a task may not be trained on; empty where it may."""
        if task.environment != self.world.name:
            return f"is a task of {task.environment}, not of {self.world.name}"
        if task.id in self.allowed:
            return ""
        if task.id in self.tested:
            return f"is a test task of level {self.tested[task.id]}"
        if task.kind in self.held_out:
            return f'is of the type "{task.kind}", which level {self.level} holds out'
        return f"is no training task of {self.world.name} on level {self.level}"


def _held_out(world: World, level: str) -> frozenset[str]:
    def kinds(split: str) -> set[str]:
        try:
            return {task.kind for task in world.tasks(level, split)}
        except UsageError:  # a world need not have every level, nor a task on it
            return set()

    return frozenset(kinds("test") - kinds("train"))


def refuse_leaks(demonstrations: Iterable[Demonstration], world: World, level: str, where: str) -> None:
    """Refuse demonstrations of tasks that a level does not train on.

    Args:
        demonstrations: the demonstrations to train on.
        world: the world, with the options of the training.
        level: the level of the training.
        where: the file, for the message.

    Raises:
        UsageError: a demonstration has such a task.
    """
    guard = Guard(world, level)
    for task in (demonstration.tree.task for demonstration in demonstrations):
        if objection := guard.objection(task):
            raise UsageError(
                f"{where} demonstrates {task.environment} task {task.id}, which {objection}: write the file again for "
                f"level {level}, with these options of the world"
            )


def refuse_held_out(run: Run, levels: Iterable[str], world: World) -> None:
    """Refuse the evaluation of a level that holds out types on which a run was trained.

    A run is trained on the training split of its level and on its demonstrations; if it starts from the model of another
    run, also on the tasks of that run.

    Args:
        run: the run.
        levels: the levels to evaluate.
        world: the world to evaluate, with its options.

    Raises:
        UsageError: a level holds out a type on which the run was trained.
    """
    held_out = {level: _held_out(world, level) for level in levels}
    if not any(held_out.values()):
        return
    trained = _trained_kinds(run)
    for level, kinds in held_out.items():
        if both := sorted(kinds & trained):
            raise UsageError(
                f"level {level} of {world.name} holds out {', '.join(both)}, but {run.directory} is trained on that: "
                f"train another run with --level {level}, or leave the level out"
            )


def _trained_kinds(run: Run) -> set[str]:
    recipe = run.recipe
    kinds = {task.kind for task in recipe.env.tasks(recipe.level, "train")}
    if run.demonstrations.exists():
        kinds |= {group[0]["kind"] for group in read_records(run.demonstrations)}
    if isinstance(recipe.model, str) and (Path(recipe.model) / "recipe.json").is_file():
        # A class from outside this package is allowed where the run itself has already loaded it.
        kinds |= _trained_kinds(Run.open(Path(recipe.model), foreign=lambda place: place.partition(":")[0] in sys.modules))
    return kinds
