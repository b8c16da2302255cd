"""Which tasks an iteration trains on, and getting tasks ready before they are played."""

from __future__ import annotations

import random
from collections.abc import Sequence

from spark_rl.common.seeding import derive
from spark_rl.contracts import Preloads
from spark_rl.errors import UsageError
from spark_rl.types import Task

__all__ = ["choose_tasks", "preload"]


def choose_tasks(tasks: Sequence[Task], count: int, *, seed: int, iteration: int) -> list[Task]:
    """The tasks of an iteration (from 1). Each epoch goes through the whole split, in a new order.

    The choice depends on seed and iteration alone, so that a resumed run needs no saved position.

    Raises:
        UsageError: the split is empty.
    """
    if not tasks:
        raise UsageError("the training split is empty; choose another level or environment options")
    chosen: list[Task] = []
    first = (iteration - 1) * count
    while len(chosen) < count:
        epoch, offset = divmod(first + len(chosen), len(tasks))
        order = list(tasks)
        random.Random(derive(seed, epoch, "tasks")).shuffle(order)
        chosen += order[offset : offset + count - len(chosen)]
    return chosen


def preload(of: object, tasks: Sequence[Task]) -> None:
    """Let a world, or the world of an executor, begin to get tasks ready, if it can (`contracts.Preloads`)."""
    if isinstance(of, Preloads) and tasks:
        of.preload(tasks)
