"""Keeping what is tested out of what is learnt: by task id, and for the held-out types of L2 by type.

Invariant: nothing is learnt from a trajectory whose task is not in the training split of the level that is trained on.
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
    """Which tasks a level may be trained on."""

    world: World
    level: str

    @cached_property
    def allowed(self) -> frozenset[str]:
        """Ids of the training split."""
        return frozenset(task.id for task in self.world.tasks(self.level, "train"))

    @cached_property
    def tested(self) -> dict[str, str]:
        """Ids of all test splits, and a level of each."""
        found: dict[str, str] = {}
        for level in reversed(LEVELS):
            with suppress(UsageError):  # a world need not have every level
                found |= {task.id: level for task in self.world.tasks(level, "test")}
        return found

    @cached_property
    def held_out(self) -> frozenset[str]:
        """Types that the level's test split asks and its training split does not have."""
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
    kinds: list[set[str]] = [set(), set()]
    for found, split in zip(kinds, ("test", "train"), strict=True):
        with suppress(UsageError):  # a world need not have every level, nor anything to ask on it
            found |= {task.kind for task in world.tasks(level, split)}
    return frozenset(kinds[0] - kinds[1])


def refuse_leaks(demonstrations: Iterable[Demonstration], world: World, level: str, where: str) -> None:
    """Let nothing be learnt from tasks that a level does not train on.

    Args:
        demonstrations: what is to be learnt.
        world: the world, with the options of the training.
        level: the level that is trained on.
        where: the file, for the message.

    Raises:
        UsageError: one is of such a task.
    """
    guard = Guard(world, level)
    for task in (shown.tree.task for shown in demonstrations):
        if objection := guard.objection(task):
            raise UsageError(
                f"{where} demonstrates {task.environment} task {task.id}, which {objection}: write the file again for "
                f"level {level}, with these options of the world"
            )


def refuse_held_out(run: Run, levels: Iterable[str], world: World) -> None:
    """Let no level be evaluated that holds out types which a run learns from.

    It learns from the training split of its level, from its demonstrations, and from what the run learnt whose model it
    starts from.

    Args:
        run: the run.
        levels: what is to be evaluated.
        world: the world that is evaluated, with its options.

    Raises:
        UsageError: a level holds out a type that the run learns from.
    """
    held_out = {level: _held_out(world, level) for level in levels}
    if not any(held_out.values()):
        return
    kinds = _learnt_kinds(run)
    for level, held in held_out.items():
        if seen := sorted(held & kinds):
            raise UsageError(
                f"level {level} of {world.name} holds out {', '.join(seen)}, but {run.directory} is trained on that: "
                f"train another run with --level {level}, or leave the level out"
            )


def _learnt_kinds(run: Run) -> set[str]:
    recipe = run.recipe
    kinds = {task.kind for task in recipe.env.tasks(recipe.level, "train")}
    if run.demonstrations.exists():
        kinds |= {group[0]["kind"] for group in read_records(run.demonstrations)}
    if isinstance(recipe.model, str) and (Path(recipe.model) / "recipe.json").is_file():
        # A class from outside this package that the run itself uses was allowed already.
        kinds |= _learnt_kinds(Run.open(Path(recipe.model), foreign=lambda place: place.partition(":")[0] in sys.modules))
    return kinds
