"""ALFWorld: household tasks on the real text engine; a task is a `game.tw-pddl` file.

Invariants
----------
* What the agent reads is the engine's text, unchanged: the first observation ends with the sentence of the task, which
  is also `Task.instruction`. Of the admissible actions only `help` is not listed (it is accepted).
* A fork and its origin answer byte for byte the same to the same actions, whatever siblings do.
* No task of a `test` split is in a `train` or `dev` split; `dev` is taken out of the training games.

Mechanism
---------
Ids and kinds of tasks come from folder names, instructions from the first 24 kB of each game, read once a process
(a second for all 3,827). An environment is a handle: the state it is in and the actions that led there. Handles of
one game share an engine and take turns by going back to their own state; a handle whose engine has loaded another game
since, or whose planner keeps no states, replays its actions and compares what it then sees with what it saw before.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spark_rl.environments import alfworld_engine
from spark_rl.environments.alfworld_expert import Walkthrough
from spark_rl.errors import EnvironmentFailure, ReplayMismatch, UsageError, unknown_name
from spark_rl.types import Observation, Task

__all__ = ["HELD_OUT", "KINDS", "Alfworld", "AlfworldEnvironment"]

KINDS = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""The six task types that the text engine plays; games of other types in the official archive are left out, as there."""
HELD_OUT = KINDS[4:]
"""Task types that level L2 trains without and tests on."""

_GAME = "game.tw-pddl"
_GOAL = re.compile(rb'Your task is to: (.*?)\\"')
_HEAD, _TAIL = 24_576, 4_096
_UNSOLVABLE = b'"solvable": false'


@dataclass(frozen=True)
class Alfworld:
    """The games under a folder, as tasks of three levels.

    L0 trains on all types and is tested on `valid_seen`; L1 trains on the same and is tested on `valid_unseen`;
    L2 trains on four types and is tested on the two others in `valid_unseen`.
    """

    data: str = ""
    """Folder that holds `json_2.1.1` (or is it); empty: `$ALFWORLD_DATA`."""
    train_tasks: int = 0
    """Train on this many games only, a fixed choice mixed over the types; 0 means all."""
    dev_tasks: int = 50
    """Games taken out of training for the development slice, a fixed choice mixed over the types."""
    engines: int = 32
    """Engines kept, some 7 MB each. With more games in play at once, states are rebuilt by replay (some 0.1 s each)."""
    memoise: bool = True
    """Do the engine's pure work once (`alfworld_memo`): the same text, some 15 times faster. Holds for the process."""

    def __post_init__(self) -> None:
        for name, least in (("train_tasks", 0), ("dev_tasks", 0), ("engines", 1)):
            if (value := getattr(self, name)) < least:
                raise UsageError(f"alfworld: {name} is {value}; give {least} or more")

    @property
    def name(self) -> str:
        """Short name, also `Task.environment`."""
        return "alfworld"

    def tasks(self, level: str, split: str) -> Sequence[Task]:
        """Tasks of a level (`L0`, `L1`, `L2`) and split (`train`, `dev`, `test`).

        Test tasks are in the order of their ids; the others in a fixed order that mixes the types.

        Raises:
            UsageError: the level or split is not known, or the games are not there; the message says where to look.
        """
        if level not in ("L0", "L1", "L2"):
            raise unknown_name("level", level, ("L0", "L1", "L2"))
        if split == "test":
            tasks = _games(self._root(), "valid_seen" if level == "L0" else "valid_unseen")
            return [task for task in tasks if level != "L2" or task.kind in HELD_OUT]
        if split not in ("train", "dev"):
            raise unknown_name("split", split, ("train", "dev", "test"))
        tasks = [task for task in _games(self._root(), "train") if level != "L2" or task.kind not in HELD_OUT]
        tasks.sort(key=lambda task: hashlib.sha256(task.id.encode()).digest())
        if split == "dev":
            return tasks[: self.dev_tasks]
        return tasks[self.dev_tasks :][: self.train_tasks or None]

    def task(self, task_id: str) -> Task:
        """The task with an id `<split folder>/<task>/<trial>`, without listing the others.

        Raises:
            UsageError: there is no such game.
        """
        parts = task_id.split("/")
        if len(parts) != 3 or not all(re.fullmatch(r"[\w-]+", part) for part in parts) or not self.game(task_id).is_file():
            raise UsageError(f'alfworld has no task "{task_id}" in {self._root()}; `spark-rl env tasks alfworld` lists them')
        task = _task(self.game(task_id), task_id)
        if task is None:
            raise UsageError(f'alfworld task "{task_id}" is marked as unsolvable; choose another')
        return task

    def game(self, task_id: str) -> Path:
        """Where the game of a task lies."""
        return self._root() / task_id / _GAME

    def make(self) -> AlfworldEnvironment:
        """A fresh environment; raises `MissingExtra` where the engine is not installed."""
        return AlfworldEnvironment(self)

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> Walkthrough:
        """A policy that follows the solution stored with each game; `tags` says how often it explores."""
        return Walkthrough(self.game, tags)

    def _root(self) -> Path:
        """The folder whose children are `train`, `valid_seen` and `valid_unseen`."""
        given = self.data or os.environ.get("ALFWORLD_DATA", "")
        if not given:
            raise UsageError("ALFWorld needs its games: set ALFWORLD_DATA or --env.data to the folder that holds json_2.1.1")
        folder = Path(given).expanduser().resolve()
        for root in (folder / "json_2.1.1", folder):
            if any((root / name).is_dir() for name in ("train", "valid_seen", "valid_unseen")):
                return root
        raise UsageError(f"no ALFWorld games in {folder}: ALFWORLD_DATA or --env.data must name the folder with json_2.1.1")


class AlfworldEnvironment:
    """One episode: a state, and the actions that lead back to it. Threads may each play their own."""

    def __init__(self, world: Alfworld) -> None:
        alfworld_engine.require()
        self.fork_cost: Literal["cheap", "replay"] = "cheap" if alfworld_engine.has_registry() else "replay"
        self._world = world
        self._task: Task | None = None
        self._game = Path()
        self._state: alfworld_engine.State | None = None
        self._actions: tuple[str, ...] = ()
        self._kind = ""

    def reset(self, task: Task) -> Observation:
        """Start the task: the room, then `Your task is to: ...`.

        Raises:
            EnvironmentFailure: the game file is missing or corrupt.
        """
        self.close()
        with alfworld_engine.LOCK:
            game = self._world.game(task.id)
            self._state = self._engine(game).start()
        self._task, self._game = task, game
        return _observation(self._state.shown)

    def step(self, action: str) -> Observation:
        """Send a command; what is not admissible is answered "Nothing happens." and changes nothing."""
        with alfworld_engine.LOCK:
            state, engine = self._here()
            admissible = action.strip() in state.shown.actions
            self._state = engine.step(action)
        self._actions += (action,)
        self._kind = action.split()[0] if admissible else "invalid"
        return _observation(self._state.shown, admissible=admissible)

    def fork(self) -> AlfworldEnvironment:
        """An independent continuation, in constant time: all that a handle holds is immutable."""
        return copy.copy(self)

    def state_key(self) -> str:
        """Verb of the last action, the engine's text, what the agent carries; three lines or more."""
        if self._state is None:
            raise EnvironmentFailure("alfworld: state_key before reset; call reset(task) first")
        return "\n".join((self._kind, self._state.shown.text, ", ".join(self._state.shown.holding)))

    def close(self) -> None:
        """Forget the episode; the engine stays in the pool for the next one."""
        self._task, self._state, self._actions, self._kind = None, None, (), ""

    def _here(self) -> tuple[alfworld_engine.State, alfworld_engine.Engine]:
        """The game's engine, in this handle's state; needs the lock."""
        if self._state is None or self._task is None:
            raise EnvironmentFailure("alfworld: step before reset; call reset(task) first")
        engine = self._engine(self._game)
        if engine.restore(self._state):
            return self._state, engine
        state = engine.start()
        for action in self._actions:
            state = engine.step(action)
        if state.shown != self._state.shown:
            raise ReplayMismatch(
                f'alfworld task "{self._task.id}": {len(self._actions)} actions replayed end with "{state.shown.text}", '
                f'before they ended with "{self._state.shown.text}"; was the game file changed?'
            )
        self._state = state
        return state, engine

    def _engine(self, game: Path) -> alfworld_engine.Engine:
        return alfworld_engine.engine_for(game, limit=self._world.engines, memoise=self._world.memoise)


def _observation(shown: alfworld_engine.Shown, *, admissible: bool = True) -> Observation:
    return Observation(
        text=shown.text,
        listing=tuple(action for action in shown.actions if action != "help"),
        reward=float(shown.won),
        done=shown.won,
        success=shown.won,
        admissible=admissible,
    )


@functools.lru_cache(maxsize=8)
def _games(root: Path, split: str) -> tuple[Task, ...]:
    """All playable games of a split folder, in the order of their ids."""
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
