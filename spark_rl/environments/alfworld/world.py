"""The `Alfworld` world: the games of each level and split.

Invariants
----------
* The first observation ends with the sentence of the task, which is also `Task.instruction`.
* No task of a `test` split is in a `train` or `dev` split. The tasks of `dev` are training games of ALFWorld that no
  `train` split has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spark_rl.common.helpers import cores
from spark_rl.contracts import Policy, Watcher
from spark_rl.environments.alfworld.ahead import Translator, translate_ahead
from spark_rl.environments.alfworld.engine import Engines
from spark_rl.environments.alfworld.environment import AlfworldEnvironment
from spark_rl.environments.alfworld.fetch import fetch
from spark_rl.environments.alfworld.games import KINDS, FolderGames, Games, find_root
from spark_rl.environments.alfworld.generated import FEWEST, MOST, GeneratedGames
from spark_rl.environments.alfworld.inventory import Inventory, counted
from spark_rl.environments.alfworld.planner import PlannerExpert
from spark_rl.environments.alfworld.search import Goal, SearchExpert
from spark_rl.environments.alfworld.walkthrough import Walkthrough
from spark_rl.environments.splits import check_names, draw
from spark_rl.errors import UsageError, unknown_name
from spark_rl.types import Task

__all__ = ["HELD_OUT", "Alfworld"]

HELD_OUT = KINDS[4:]
"""Task types that level L2 trains without and tests on."""


@dataclass(frozen=True)
class Alfworld:
    """Games, official or generated, as tasks of three levels.

    L0 trains on all types and is tested on `valid_seen`; L1 trains on the same and is tested on `valid_unseen`;
    L2 trains on four types and is tested on the two others in `valid_unseen`.
    """

    data: str = ""
    """Folder that holds `json_2.1.1` (or is it); empty: `$ALFWORLD_DATA`, else `~/.cache/alfworld`. For official games."""
    games: Literal["official", "generated"] = "official"
    """The games of the folder, or generated ones (3,600 for training, 120 in each test split)."""
    objects: int = 40
    """Things in a generated game, 6 to 120; official kitchens usually hold 44, other rooms 16 to 23."""
    train_tasks: int = 0
    """Number of training games, a fixed choice mixed over the types; 0 means all."""
    dev_tasks: int = 50
    """Number of training games that form the `dev` split instead, a fixed choice mixed over the types."""
    test_tasks: int = 0
    """Number of games of each test split, a fixed choice mixed over the types; 0 means all, as in published numbers."""
    engines: int = 32
    """Most engines, some 7 MB each. With more games in play at once, states are rebuilt by replay (some 0.1 s each)."""
    memoise: bool = True
    """Cache the engine's pure work (`alfworld/memo.py`): the same texts, some 100 times faster. Holds for the process."""
    cache: int = 256
    """Most megabytes of translated games in the user's cache folder, some 0.05 a game, with `memoise`; 0: none."""
    workers: int = 0
    """Processes that hold the engines; 0: this process does. A worker that hangs or dies is replaced, and replays."""
    timeout: float = 60.0
    """Seconds that a worker has for a step or a reset before it is killed."""
    accept_put: bool = False
    """Accept `put X in/on Y`, the form of older data sets and papers, as `move X to Y`."""
    solver: Literal["search", "walkthrough", "planner"] = "search"
    """The expert: one that searches from observations, or one with full knowledge: the stored solution, the planner."""

    def __post_init__(self) -> None:
        for name in ("train_tasks", "dev_tasks", "test_tasks", "engines", "workers", "cache"):
            least = int(name == "engines")
            if (value := getattr(self, name)) < least:
                raise UsageError(f"alfworld: {name} is {value}; give {least} or more")
        if not self.timeout > 0:
            raise UsageError(f"alfworld: timeout is {self.timeout}; give seconds above 0")
        if self.games not in (known := ("official", "generated")):
            raise unknown_name("kind of ALFWorld games", self.games, known)
        if self.solver not in (solvers := ("search", "walkthrough", "planner")):
            raise unknown_name("expert", self.solver, solvers)
        if not FEWEST <= self.objects <= MOST:
            raise UsageError(f"alfworld: objects is {self.objects}; give {FEWEST} to {MOST}")

    @property
    def name(self) -> str:
        """Short name, also `Task.environment`."""
        return "alfworld"

    def tasks(self, level: str, split: str) -> Sequence[Task]:
        """Tasks of a level (`L0`, `L1`, `L2`) and split (`train`, `dev`, `test`).

        Test tasks are in the order of their ids; other tasks are in a fixed order that mixes the types.

        Raises:
            UsageError: the level or split is not known, or the games are missing; the message says where to look.
        """
        check_names(level, split)
        if split == "test":
            tasks = self.source().split("valid_seen" if level == "L0" else "valid_unseen")
            tasks = [task for task in tasks if level != "L2" or task.kind in HELD_OUT]
            chosen = set(sorted(tasks, key=lambda task: draw(task.id))[: self.test_tasks or None])
            return [task for task in tasks if task in chosen]
        tasks = [task for task in self.source().split("train") if level != "L2" or task.kind not in HELD_OUT]
        tasks.sort(key=lambda task: draw(task.id))
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
        """The set of games that `games` names."""
        return FolderGames(find_root(self.data)) if self.games == "official" else GeneratedGames(self.objects)

    def make(self) -> AlfworldEnvironment:
        """A new environment.

        Raises:
            MissingExtra: the engine is not installed.
        """
        return AlfworldEnvironment(
            self.source(),
            limit=self.engines,
            memoise=self.memoise,
            cache=self.cache,
            workers=self.workers,
            timeout=self.timeout,
            accept_put=self.accept_put,
        )

    def preload(self, tasks: Sequence[Task]) -> None:
        """Begin to translate the games of tasks, where another core may do so and the disk keeps the translations."""
        if self.memoise and self.cache and cores() > 1:
            translate_ahead(Translator(self.source(), self.cache), [task.id for task in tasks])

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> Policy:
        """The expert that `solver` names; `tags` sets how often it explores."""
        if self.solver == "search":
            return SearchExpert(self.make, tags)
        if self.solver == "walkthrough":
            return Walkthrough(self.source().read, tags)
        return PlannerExpert(Engines(self.source(), self.engines, self.memoise, self.cache), tags)

    def plan(self, task: Task) -> str:
        """A task's steps in words.

        Raises:
            PolicyFailure: the task's sentence is none of ALFWorld's.
        """
        return Goal.read(task.instruction).plan

    def about(self) -> str:
        """The number of games by split, which `spark-rl env check` prints.

        Raises:
            UsageError: `games` is `official`, and there are none.
        """
        if self.games == "generated":
            return f"generated games of {self.objects} objects"
        return counted(find_root(self.data))

    def fetch(self, source: Path | None, to: Path | None, *, link: bool, tell: Watcher) -> Inventory:
        """Fetch and verify the official games: see `fetch.fetch`."""
        return fetch(source, to, link=link, tell=tell)
