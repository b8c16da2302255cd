"""The `Sokoban` world: the rooms and starts of each level and split.

Invariants
----------
* The board of a task is a function of the world's options and the task's id. It is generated when it is first played.
* No board is in two of train, dev and test, not even rotated or reflected: the split of a room, and of a start in it, is a
  function of their canonical forms.

| level | train | dev, test |
|---|---|---|
| L0 | the training rooms | the same rooms, other starts |
| L1 | as L0 | rooms that no training task has |
| L2 | as L0 | such rooms with one more box |
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from spark_rl.common.seeding import derive
from spark_rl.environments.games import GameEnvironment, GameExpert
from spark_rl.environments.sokoban.board import Board, Room, Rules
from spark_rl.environments.sokoban.expert import decide, slip
from spark_rl.environments.sokoban.rooms import canonical, carve, starts
from spark_rl.environments.splits import LEVELS, SPLITS, check_names, split_of
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.types import Task

__all__ = ["Sokoban"]

_ATTEMPTS = 500
_LEGEND = "X is a box, O a target, * a box on a target, P you, S you on a target, # a wall. "
_CHOICES = {"reward": ("success", "score"), "view": ("grid", "list", "both")}


@dataclass(frozen=True)
class Sokoban:
    """Push every box onto a target; boxes cannot be pulled, so some pushes lose for good."""

    size: int = 7
    """Cells along a side, the outer wall included."""
    boxes: int = 2
    """Boxes of a level; L2 asks for one more."""
    moves: tuple[int, int] = (8, 20)
    """Least and most moves of the shortest solution, in every level."""
    rooms: int = 256
    """Number of training rooms; the tests of L0 use the same rooms."""
    reward: Literal["success", "score"] = "success"
    """`success`: 1 for success. `score` (original): -0.1 a step, 1 for a box onto a target, -1 off it, 10 for success."""
    view: Literal["grid", "list", "both"] = "grid"
    """Text of a board: a grid of symbols, a list of the cells of player, boxes, targets and inner walls, or both."""
    end_lost: bool = False
    """End an episode as soon as it cannot be won any more. Without this the player does not learn that the board is lost."""
    train_tasks: int = 2000
    dev_tasks: int = 60
    test_tasks: int = 120

    def __post_init__(self) -> None:
        object.__setattr__(self, "moves", tuple(self.moves))
        for name, least, most in (("size", 5, 10), ("boxes", 1, 3)):
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"env.{name} is {getattr(self, name)}: it must lie between {least} and {most}")
        if len(self.moves) != 2 or not 1 <= self.moves[0] <= self.moves[1]:
            raise UsageError(f"env.moves is {self.moves}: give the least and the most moves of a solution, 1 or more")
        at_least("env", self, rooms=1, train_tasks=1, dev_tasks=1, test_tasks=1)
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(f"env.{name}", str(getattr(self, name)), known)

    @property
    def name(self) -> str:
        """`sokoban`."""
        return "sokoban"

    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        """The tasks of a level and split; all levels train on those of L0.

        Raises:
            UsageError: unknown level or split.
        """
        check_names(level, split)
        level = "L0" if split == "train" else level
        return tuple(self._task(level, split, number) for number in range(self._count(split)))

    def task(self, task_id: str) -> Task:
        """The task with this id (`L0/train/17`).

        Raises:
            UsageError: there is no such task.
        """
        return self._task(*self._named(task_id))

    def make(self) -> GameEnvironment[Board]:
        """A new environment."""
        return GameEnvironment(self.start)

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> GameExpert[Board]:
        """A policy that plays a shortest solution from any position."""
        return GameExpert(self.start, decide, tags, slip)

    def start(self, task: Task) -> Board:
        """The board that a task begins with.

        Raises:
            UsageError: the task is not from this world, or no board fits the options.
        """
        if task.environment != self.name:
            raise UsageError(f"task {task.id} of {task.environment} is none of sokoban's")
        return _level(self, *self._named(task.id))

    def _named(self, id: str) -> tuple[str, str, int]:
        level, _, rest = id.partition("/")
        split, _, number = rest.partition("/")
        known = level in LEVELS and split in SPLITS and (level == "L0" or split != "train")
        if known and number.isdecimal() and str(int(number)) == number and int(number) < self._count(split):
            return level, split, int(number)
        raise UsageError(f'sokoban has no task "{id}"; `spark-rl env tasks sokoban` lists them')

    def _count(self, split: str) -> int:
        return int(getattr(self, f"{split}_tasks"))

    def _boxes(self, level: str) -> int:
        return self.boxes + (level == "L2")

    def _task(self, level: str, split: str, number: int) -> Task:
        legend = "" if self.view == "list" else _LEGEND
        instruction = f"push every box onto a target. {legend}Cell 23 is row 2, column 3, counted from 0."
        return Task(self.name, f"{level}/{split}/{number}", instruction, _counted(self._boxes(level)))

    def room(self, level: str, split: str, number: int) -> Room:
        """The room with this number: a training room for L0 and for every training split, else a room of the split."""
        return _room(self.size, self._boxes(level), "train" if level == "L0" else split, number)

    def draw(self, level: str, split: str, number: int) -> Board:
        """The board of a task: rooms are drawn until one has a start that belongs to this split."""
        rules = Rules(self.reward, self.view, self.end_lost)
        for attempt in range(_ATTEMPTS):
            rng = random.Random(derive("sokoban", "task", level, split, number, attempt))
            room = self.room(level, split, rng.randrange(self.rooms) if level == "L0" else rng.randrange(2**31))
            for tried, board in enumerate(starts(room, *self.moves, rng, rules)):
                form = canonical(room.size, room.floor, room.targets, board.boxes, 1 << board.player)
                if split_of("sokoban", "start", form) == split:
                    return board
                if tried == 100:
                    break
        raise UsageError(
            f"env.moves is {self.moves[0]} to {self.moves[1]}, but no room of size {self.size} with "
            f"{_counted(self._boxes(level))} was found for {level}/{split} in {_ATTEMPTS} tries: "
            "ask for fewer moves or boxes, or a larger env.size or env.rooms"
        )


def _counted(boxes: int) -> str:
    return f"{boxes} box{'es' * (boxes > 1)}"


@lru_cache(maxsize=8192)
def _level(world: Sokoban, level: str, split: str, number: int) -> Board:
    return world.draw(level, split, number)


@lru_cache(maxsize=8192)
def _room(size: int, boxes: int, pool: str, number: int) -> Room:
    """The first room drawn for this number whose canonical form belongs to the split `pool`."""
    attempt = 0
    while True:
        room = carve(size, boxes, random.Random(derive("sokoban", "room", size, boxes, pool, number, attempt)))
        if split_of("sokoban", "room", canonical(size, room.floor, room.targets)) == pool:
            return room
        attempt += 1
