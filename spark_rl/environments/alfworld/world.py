"""The `Alfworld` world: which games are the tasks of which level and split.

Invariants
----------
* The first observation ends with the sentence of the task, which is also `Task.instruction`.
* No task of a `test` split is in a `train` or `dev` split; `dev` is taken out of the training games.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spark_rl.environments.alfworld.environment import AlfworldEnvironment
from spark_rl.environments.alfworld.games import KINDS, FolderGames, Games
from spark_rl.environments.alfworld.walkthrough import Walkthrough
from spark_rl.errors import UsageError, unknown_name
from spark_rl.types import Task

__all__ = ["HELD_OUT", "Alfworld"]

HELD_OUT = KINDS[4:]
"""Task types that level L2 trains without and tests on."""


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
            tasks = self.source().split("valid_seen" if level == "L0" else "valid_unseen")
            return [task for task in tasks if level != "L2" or task.kind in HELD_OUT]
        if split not in ("train", "dev"):
            raise unknown_name("split", split, ("train", "dev", "test"))
        tasks = [task for task in self.source().split("train") if level != "L2" or task.kind not in HELD_OUT]
        tasks.sort(key=lambda task: hashlib.sha256(task.id.encode()).digest())
        if split == "dev":
            return tasks[: self.dev_tasks]
        return tasks[self.dev_tasks :][: self.train_tasks or None]

    def task(self, task_id: str) -> Task:
        """The task with an id `<split folder>/<task>/<trial>`, without listing the others.

        Raises:
            UsageError: there is no such game.
        """
        return self.source().task(task_id)

    def source(self) -> Games:
        """Where the games come from."""
        return FolderGames(self._root())

    def make(self) -> AlfworldEnvironment:
        """A fresh environment; raises `MissingExtra` where the engine is not installed."""
        return AlfworldEnvironment(self.source(), limit=self.engines, memoise=self.memoise)

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> Walkthrough:
        """A policy that follows the solution stored with each game; `tags` says how often it explores."""
        return Walkthrough(self.source().read, tags)

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
