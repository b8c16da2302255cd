"""Where games come from: `Games` lists the games of a split and reads one.

Invariant: an id names one game for good, and says its split and its type: `<split>/<type>-<...>/<trial>`.

A game is what the engine loads: a dictionary with the texts of domain, grammar and problem (`pddl_domain`, `grammar`,
`pddl_problem`) and the stored `walkthrough`. In a folder it is a file `game.tw-pddl`, as `alfworld-download` lays it out.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.types import Task

__all__ = ["KINDS", "FolderGames", "Games"]

KINDS = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""The six task types that the text engine plays; games of other types in the official archive are left out, as there."""

_GAME = "game.tw-pddl"
_GOAL = re.compile(rb'Your task is to: (.*?)\\"')
_HEAD, _TAIL = 24_576, 4_096
_UNSOLVABLE = b'"solvable": false'


class Games(Protocol):
    """A set of games; a hashable value, so that equal sets share loaded engines."""

    def split(self, name: str) -> tuple[Task, ...]:
        """All games of `train`, `valid_seen` or `valid_unseen`, in the order of their ids.

        Raises:
            UsageError: there are none; the message says where to look.
        """
        ...

    def task(self, task_id: str) -> Task:
        """The game with this id, without listing the others.

        Raises:
            UsageError: there is none.
        """
        ...

    def read(self, task_id: str) -> dict[str, Any]:
        """The game itself.

        Raises:
            EnvironmentFailure: it is missing or cannot be read; the message names it.
        """
        ...


@dataclass(frozen=True)
class FolderGames:
    """The games under a folder whose children are `train`, `valid_seen` and `valid_unseen`."""

    root: Path

    def split(self, name: str) -> tuple[Task, ...]:
        """All playable games of a split's folder."""
        return _listed(self.root, name)

    def task(self, task_id: str) -> Task:
        """The task of one game file."""
        parts = task_id.split("/")
        if len(parts) != 3 or not all(re.fullmatch(r"[\w-]+", part) for part in parts) or not self.file(task_id).is_file():
            raise UsageError(f'alfworld has no task "{task_id}" in {self.root}; `spark-rl env tasks alfworld` lists them')
        task = _task(self.file(task_id), task_id)
        if task is None:
            raise UsageError(f'alfworld task "{task_id}" is marked as unsolvable; choose another')
        return task

    def read(self, task_id: str) -> dict[str, Any]:
        """The content of a game file."""
        file = self.file(task_id)
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise EnvironmentFailure(
                f"game file {file} cannot be read ({reason}); unpack the ALFWorld archive again"
            ) from error

    def file(self, task_id: str) -> Path:
        """Where a game lies."""
        return self.root / task_id / _GAME


@functools.lru_cache(maxsize=8)
def _listed(root: Path, split: str) -> tuple[Task, ...]:
    folders = (folder for folder in sorted(root.glob(f"{split}/*-*")) if _is_playable(folder.name))
    games = (game for folder in folders for game in sorted(folder.glob(f"*/{_GAME}")))
    found = (_task(game, game.parent.relative_to(root).as_posix()) for game in games)
    tasks = tuple(task for task in found if task is not None)
    if not tasks:
        raise UsageError(f"no ALFWorld games in {root / split}: unpack the archive that holds this split there")
    return tasks


def _is_playable(folder: str) -> bool:
    """Whether the text engine plays tasks of this kind: of a known type, and nothing to be sliced."""
    return folder.partition("-")[0] in KINDS and "Sliced" not in folder


def _task(game: Path, task_id: str) -> Task | None:
    """The task of a game file, read off its head and tail; None when it is marked as unsolvable."""
    with game.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(game.stat().st_size - _TAIL, 0))
        tail = file.read()
    if (goal := _GOAL.search(head)) is None:
        raise EnvironmentFailure(f"game file {game} names no task; unpack the ALFWorld archive again")
    kind = task_id.split("/")[1].partition("-")[0]
    return None if _UNSOLVABLE in tail else Task("alfworld", task_id, goal[1].decode(), kind)
