"""Contracts of the text worlds: an `Environment` is one episode in progress, a `World` hands out tasks and environments.

Invariants
----------
* An environment has no step limit of its own and gives raw rewards; the rollout alone enforces the horizon.
* `step` accepts any string. What the world does not know, or cannot carry out, changes nothing and comes back with
  `Observation.admissible` false.
* `fork` is exact: parent and child given the same actions answer byte for byte the same, whatever a sibling does.

A world is a frozen dataclass whose fields are the options `--env.NAME` of the command line. `environments/check.py`
is this contract as a test.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol, cast, runtime_checkable

from spark_rl.errors import UsageError, unknown_name
from spark_rl.types import Observation, Task

__all__ = ["WORLDS", "Environment", "Tells", "World", "find_task", "load_world"]


@runtime_checkable
class Environment(Protocol):
    """One episode in progress. Authors write text; tokens are another layer's matter."""

    fork_cost: Literal["cheap", "replay"]
    """`cheap`: states may be kept by the hundred. `replay`: better to take the action prefix again."""

    def reset(self, task: Task) -> Observation:
        """Start the task; may be called again on the same object."""
        ...

    def step(self, action: str) -> Observation:
        """Carry out one action, or change nothing when it is not admissible."""
        ...

    def fork(self) -> Environment:
        """An independent continuation of this very state."""
        ...

    def state_key(self) -> str:
        """Kind of the last action, current observation, inventory: equal for states that look and hold the same.

        No history and no step number: it is what anchors and repeated actions are counted by.
        """
        ...

    def close(self) -> None:
        """Release what the episode holds; calling it twice is harmless."""
        ...


@runtime_checkable
class World(Protocol):
    """A family of tasks and the environments that play them; a frozen value."""

    @property
    def name(self) -> str:
        """Short name, also `Task.environment`."""
        ...

    def tasks(self, level: str, split: str) -> Sequence[Task]:
        """Tasks of a generalisation level (`L0`, `L1`, `L2`) and a split (`train`, `dev`, `test`), in a fixed order."""
        ...

    def make(self) -> Environment:
        """A fresh environment, not yet reset."""
        ...

    # Optional: `expert() -> Policy`, a policy that solves tasks from observations (used by `spark-rl demos`).
    # Optional: `plan(task) -> str`, a task's steps in words, for demonstrations in RLVMR's modes (`prompt.modes`).
    # Optional: `task(id) -> Task`, faster than searching the splits for an id.
    # Optional: `demonstrable(tasks, horizon) -> Iterable[Task]`, those worth the expert's time, in the order to play.
    # Optional: `lost() -> int`, how many of its processes died or hung and were replaced (`Spent.restarts`).
    # Optional: `unlimited() -> World`, for recordings: shows what the original shows, without limits that end an episode.


class Tells(Protocol):
    """Told how it goes; a `progress.Watcher` is one."""

    def phase(self, name: str, total: int | None = None) -> None:
        """A phase of so many parts begins."""
        ...

    def advance(self, done: int) -> None:
        """So many parts are done."""
        ...


WORLDS: dict[str, str] = {
    "household": "spark_rl.environments.household:Household",
    "alfworld": "spark_rl.environments.alfworld:Alfworld",
    "scienceworld": "spark_rl.environments.scienceworld:ScienceWorld",
    "sokoban": "spark_rl.environments.sokoban:Sokoban",
    "ezpoints": "spark_rl.environments.cards:EZPoints",
    "numberline": "spark_rl.environments.cards:NumberLine",
    "blackjack": "spark_rl.environments.cards:Blackjack",
    "webshop": "spark_rl.environments.webshop:Webshop",
}
"""Name on the command line -> `module:Class`. A new world is one file and one line here."""


def load_world(name: str, **options: Any) -> World:
    """Build a world from a known name or from `package.module:Class`.

    Raises:
        UsageError: the name, the module or an option is not known; the message says which.
    """
    if ":" not in name and name not in WORLDS:
        raise unknown_name("environment", name, WORLDS)
    module, _, attribute = (WORLDS.get(name, name)).partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(f'environment "{name}" cannot be imported ({error}); give package.module:Class') from error
    try:
        return cast(World, factory(**options))
    except TypeError as error:
        raise UsageError(f'environment "{name}" does not take these options: {error}') from error


def find_task(world: World, task_id: str) -> Task:
    """The task with this id, from whichever level and split holds it."""
    if (lookup := getattr(world, "task", None)) is not None:
        return cast(Task, lookup(task_id))
    for split in ("test", "dev", "train"):
        for level in ("L0", "L1", "L2"):
            with suppress(UsageError):  # a world need not have every level
                for task in world.tasks(level, split):
                    if task.id == task_id:
                        return task
    raise UsageError(f'{world.name} has no task "{task_id}"; `spark-rl env tasks {world.name}` lists them')
