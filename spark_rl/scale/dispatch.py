"""Which worker grows which trees.

Invariants
----------
* Every unit is grown exactly once: one whose worker is lost is grown again, and only the last answer counts.
* A tree stays with the worker that has its states, unless another worker has nothing else to do.
* The result does not depend on the choice, since a tree is the same on every worker (`rollout.parts`).

A unit is a tree, or a pool of trees that take leaves from one another. Units are dealt out by the work that is expected of
them, longest first, each to the worker with the least. A worker has at most `slots` units at once; a worker without any
takes the longest that waits for the worker with the most work left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from spark_rl.common.running import side_by_side
from spark_rl.errors import SparkError
from spark_rl.rollout.grown import Grown
from spark_rl.rollout.parts import Harvest

__all__ = ["ATTEMPTS", "Dispatch", "Unit", "WorkerLost"]

ATTEMPTS = 4
"""How many workers a unit may lose before the run stops: it is what kills them."""


class WorkerLost(Exception):
    """A worker died or hung while it grew a unit. Another one is in its place, under the same number."""


@dataclass(frozen=True)
class Unit:
    """Trees that grow together on one worker."""

    trees: Sequence[Grown]
    work: float
    """Expected work, in any measure that is common to the units."""

    def __str__(self) -> str:
        """The tasks of its trees, for messages."""
        return ", ".join(tree.tree.task.id for tree in self.trees)


@dataclass
class Dispatch:
    """Deals units out to workers until all have grown."""

    workers: int
    slots: int
    """Units that a worker grows at once; 0: all that it has."""
    send: Callable[[int, Unit], Awaitable[Harvest]]
    """Lets a worker grow a unit; raises `WorkerLost`."""
    homes: dict[int, int] = field(default_factory=dict[int, int])
    """By the place of a tree: the worker that has its states."""
    stolen: int = 0
    """Units that another worker took over."""

    async def run(self, units: Sequence[Unit]) -> list[Harvest]:
        """Grow all units; the harvests in any order.

        Raises:
            SparkError: a unit lost too many workers, or growing it failed.
        """
        queues = self._deal(units)
        harvests: list[Harvest] = []
        slots = self.slots or len(units)
        # Each worker fills its slots from its own queue before any takes from another's.
        first = [(worker, queue.pop(0) if queue else None) for worker, queue in enumerate(queues) for _ in range(slots)]
        await side_by_side([self._serve(worker, unit, queues, harvests) for worker, unit in first])
        return harvests

    def _deal(self, units: Sequence[Unit]) -> list[list[Unit]]:
        """A queue for each worker, longest first. What has a home goes there; the rest evens the load out."""
        queues: list[list[Unit]] = [[] for _ in range(self.workers)]
        load = [0.0] * self.workers
        at_home = [(self.homes.get(unit.trees[0].index), unit) for unit in units]
        for home, unit in sorted(at_home, key=lambda pair: (pair[0] is None, -pair[1].work)):
            worker = load.index(min(load)) if home is None else home
            queues[worker].append(unit)
            load[worker] += unit.work
        for queue in queues:
            queue.sort(key=lambda unit: -unit.work)
        return queues

    async def _serve(self, worker: int, first: Unit | None, queues: list[list[Unit]], harvests: list[Harvest]) -> None:
        """One slot of a worker: grow unit after unit until none waits."""
        unit = first or self._next(worker, queues)
        while unit is not None:
            for tree in unit.trees:
                self.homes[tree.index] = worker
            harvests.append(await self._grown(worker, unit))
            unit = self._next(worker, queues)

    async def _grown(self, worker: int, unit: Unit) -> Harvest:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self.send(worker, unit)
            except WorkerLost as lost:
                if attempt == ATTEMPTS:
                    raise SparkError(
                        f"{ATTEMPTS} workers were lost, one after the other, while they grew {unit} ({lost}); if memory ran "
                        "out, lower --scale.workers, --scale.slots or --engine.cache-gb"
                    ) from None
        raise AssertionError("the loop returns or raises")

    def _next(self, worker: int, queues: list[list[Unit]]) -> Unit | None:
        """The worker's own longest unit, else that of the worker with the most work left."""
        queue = queues[worker]
        if not queue:
            queue = max(queues, key=lambda queue: sum(unit.work for unit in queue))
            self.stolen += bool(queue)
        return queue.pop(0) if queue else None
