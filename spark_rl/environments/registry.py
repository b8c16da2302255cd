"""The worlds by name, and tasks by id."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

from spark_rl.common.loading import load_object
from spark_rl.contracts import FindsTasks, World
from spark_rl.errors import UsageError, unknown_name
from spark_rl.types import Task

__all__ = ["WORLDS", "find_task", "load_world"]

WORLDS: dict[str, str] = {
    "household": "spark_rl.environments.household.world:Household",
    "alfworld": "spark_rl.environments.alfworld.world:Alfworld",
    "scienceworld": "spark_rl.environments.scienceworld.world:ScienceWorld",
    "sokoban": "spark_rl.environments.sokoban.world:Sokoban",
    "ezpoints": "spark_rl.environments.cards.ezpoints:EZPoints",
    "numberline": "spark_rl.environments.cards.numberline:NumberLine",
    "blackjack": "spark_rl.environments.cards.blackjack:Blackjack",
    "webshop": "spark_rl.environments.webshop.world:Webshop",
}
"""Name on the command line (and in saved files) -> `module:Class`, where the module defines the class. A new world needs
one file and one line here."""


def load_world(name: str, **options: object) -> World:
    """Build a world from a name in `WORLDS` or from `package.module:Class`.

    Args:
        name: the name.
        options: fields of the world.

    Raises:
        UsageError: the name, the module or an option is unknown; the message says which.
    """
    if ":" not in name and name not in WORLDS:
        raise unknown_name("environment", name, WORLDS)
    factory = load_object(WORLDS.get(name, name), "environment")
    try:
        return cast(World, factory(**options))
    except TypeError as error:
        raise UsageError(f'environment "{name}" does not take these options: {error}') from error


def find_task(world: World, task_id: str) -> Task:
    """The task with this id, from any level and split.

    Raises:
        UsageError: the world has no such task.
    """
    if isinstance(world, FindsTasks):
        return world.task(task_id)
    for split in ("test", "dev", "train"):
        for level in ("L0", "L1", "L2"):
            with suppress(UsageError):  # a world need not have every level
                for task in world.tasks(level, split):
                    if task.id == task_id:
                        return task
    raise UsageError(f'{world.name} has no task "{task_id}"; `spark-rl env tasks {world.name}` lists them')
