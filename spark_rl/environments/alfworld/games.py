"""Sets of games: `Games` lists the games of a split and reads one.

Invariant: an id names one game for good, and contains its split and its type: `<split>/<type>-<...>/<trial>`.

The engine loads a game as a dictionary with the texts of domain, grammar and problem (`pddl_domain`, `grammar`,
`pddl_problem`) and the stored `walkthrough`. In a folder, a game is a file `game.tw-pddl`, in the layout of
`alfworld-download`.

To list a split, the head and tail of each of its files are read once. The tasks go into an index in the user's cache folder
(`$XDG_CACHE_HOME/spark-rl/alfworld`, never beside the data, which may be shared or read-only), with a hash of the files'
names, sizes and modification times. A process that lists the split for the first time therefore notices a game that was
added, removed, replaced or edited. It does not notice an edit that leaves size and time as they were, or one after the
first listing. Where the index is damaged or cannot be written, the files are read again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict, cast

from spark_rl.common.files import cache_folder, write_bytes
from spark_rl.errors import EnvironmentFailure, StorageError, UsageError
from spark_rl.types import Task

__all__ = ["KINDS", "OFFICIAL", "FolderGames", "Game", "Games", "data_folder", "find_root", "game_files", "root_in"]

KINDS = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""The six task types that the text engine plays; games of other types in the official archive are left out."""

OFFICIAL = {
    "train": (790, 308, 650, 459, 533, 813),
    "valid_seen": (35, 13, 27, 16, 25, 24),
    "valid_unseen": (24, 18, 31, 23, 21, 17),
}
"""Games of each official split by type, in the order of `KINDS`: 3,553, 140 and 134."""

_GAME = "game.tw-pddl"
_GOAL = re.compile(rb'Your task is to: (.*?)\\"')
_HEAD, _TAIL = 24_576, 4_096
_UNSOLVABLE = b'"solvable": false'
_WORTH_AN_INDEX = 500
"""Fewest files of a split with an index; a smaller split is read each time, in some 10 ms."""


class Game(TypedDict):
    """The content of a game file. Official files have more fields, and nothing here checks that these are there."""

    pddl_domain: str
    grammar: str
    pddl_problem: str
    solvable: bool
    walkthrough: list[str]


class Games(Protocol):
    """A set of games; a hashable value, so that equal sets share loaded engines."""

    def split(self, name: str) -> tuple[Task, ...]:
        """All games of `train`, `valid_seen` or `valid_unseen`, in the order of their ids.

        Raises:
            UsageError: the split has no games; the message says where to look.
        """
        ...

    def task(self, task_id: str) -> Task:
        """The game with this id, without listing the others.

        Raises:
            UsageError: there is no such game.
        """
        ...

    def read(self, task_id: str) -> Game:
        """The content of the game.

        Raises:
            EnvironmentFailure: the game is missing or cannot be read; the message names it.
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
        goal = _read_goal(self.file(task_id))
        if goal is None:
            raise UsageError(f'alfworld task "{task_id}" is marked as unsolvable; choose another')
        return _task(task_id, goal)

    def read(self, task_id: str) -> Game:
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
        """The file of a game."""
        return self.root / task_id / _GAME


def data_folder() -> Path:
    """The data folder of the official tools: `$ALFWORLD_DATA`, else `~/.cache/alfworld`."""
    return Path(os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld").expanduser().resolve()


def find_root(given: str = "") -> Path:
    """The folder whose children are the splits.

    Args:
        given: that folder, or the folder that holds it as `json_2.1.1`; empty: `data_folder()`.

    Raises:
        UsageError: there are no games; the message says what to set or to call.
    """
    folder = Path(given).expanduser().resolve() if given else data_folder()
    if (root := root_in(folder)) is not None:
        return root
    fetch = "or get them by `spark-rl env fetch alfworld`"
    if not given and not os.environ.get("ALFWORLD_DATA"):
        raise UsageError(
            f"ALFWorld needs its games: set ALFWORLD_DATA or --env.data to the folder that holds json_2.1.1, {fetch}"
        )
    raise UsageError(
        f"no ALFWorld games in {folder}: ALFWORLD_DATA or --env.data must name the folder with json_2.1.1, {fetch}"
    )


def root_in(folder: Path) -> Path | None:
    """The folder of the splits: `json_2.1.1` in the folder, or the folder itself; None where neither has a split."""
    roots = (folder / "json_2.1.1", folder)
    return next((root for root in roots if any((root / split).is_dir() for split in OFFICIAL)), None)


def game_files(root: Path, split: str) -> list[tuple[str, os.stat_result]]:
    """Id and status of each file of a split that may be a game the text engine plays, in the order of ids.

    Raises:
        UsageError: a folder cannot be read.
    """
    files: list[tuple[str, os.stat_result]] = []
    try:
        for folder in filter(_is_playable, _names(f"{root}/{split}")):
            for trial in _names(f"{root}/{split}/{folder}"):
                with suppress(FileNotFoundError, NotADirectoryError):
                    # Plain strings: thousands of Path objects would take twice as long as the rest of this function.
                    files.append((f"{split}/{folder}/{trial}", os.stat(f"{root}/{split}/{folder}/{trial}/{_GAME}")))  # noqa: PTH116
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read ({error.strerror}); make the ALFWorld games readable") from error
    return files


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_playable(folder: str) -> bool:
    """Whether the text engine plays the tasks of a folder: their type is in `KINDS`, and nothing has to be sliced."""
    return folder.partition("-")[0] in KINDS and "Sliced" not in folder


@functools.lru_cache(maxsize=8)
def _listed(root: Path, split: str) -> tuple[Task, ...]:
    files = game_files(root, split)
    if len(files) < _WORTH_AN_INDEX:
        goals = _read_goals(root, files)
    else:
        text = "\n".join(f"{task_id} {status.st_size} {status.st_mtime_ns}" for task_id, status in files)
        seal = hashlib.sha256(f"1 {root}\n{text}".encode()).hexdigest()
        index = cache_folder() / "alfworld" / f"{hashlib.sha256(str(root).encode()).hexdigest()[:16]}-{split}.json"
        goals = _load_index(index, seal)
        if goals is None:
            goals = _read_goals(root, files)
            with suppress(StorageError):
                write_bytes(index, json.dumps({"seal": seal, "goals": goals}).encode())
    if not goals:
        raise UsageError(f"no ALFWorld games in {root / split}: unpack the archive that holds this split there")
    return tuple(_task(task_id, goal) for task_id, goal in goals.items())


def _load_index(file: Path, seal: str) -> dict[str, str] | None:
    """Goals by id; None where the index is damaged or belongs to other files."""
    with suppress(OSError, ValueError):
        match json.loads(file.read_bytes()):
            case {"seal": stored, "goals": dict()} as index if stored == seal:
                return cast(dict[str, str], index["goals"])
            case _:
                pass
    return None


def _read_goals(root: Path, files: list[tuple[str, os.stat_result]]) -> dict[str, str]:
    """Task sentence of each game that can be solved, by id."""
    goals = ((task_id, _read_goal(root / task_id / _GAME)) for task_id, _ in files)
    return {task_id: goal for task_id, goal in goals if goal is not None}


def _read_goal(game: Path) -> str | None:
    """The task sentence of a game file, from its head and tail; None where the game is marked as unsolvable."""
    try:
        with game.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(os.fstat(file.fileno()).st_size - _TAIL, 0))
            tail = file.read()
    except OSError as error:
        raise EnvironmentFailure(
            f"game file {game} cannot be read ({error.strerror}); unpack the ALFWorld archive again"
        ) from error
    if (goal := _GOAL.search(head)) is None:
        raise EnvironmentFailure(f"game file {game} names no task; unpack the ALFWorld archive again")
    return None if _UNSOLVABLE in tail else goal[1].decode(errors="replace")


def _task(task_id: str, goal: str) -> Task:
    return Task("alfworld", task_id, goal, task_id.split("/")[1].partition("-")[0])
