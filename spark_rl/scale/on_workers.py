"""Trees that grow on workers, each with an engine and worlds of its own; fulfils `contracts.Executor`.

Invariants
----------
* The forest is that of one process (`rollout.grow`): this process alone plans forks and grants leaves; workers grow.
* A request carries the weights' version and where to get them, so a worker that was started anew has the right ones.
* A worker that is lost loses time and nothing else: its trees grow again, from their records, and what it spent on them is
  not counted. The loss is counted (`Spent.restarts`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

from spark_rl.common.helpers import cores
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Growth, ModelSource, ModelState, Ranks
from spark_rl.rollout.clock import Clock
from spark_rl.rollout.grow import finished, in_phases
from spark_rl.rollout.grown import Grown, Known, Planned, seedlings
from spark_rl.rollout.ledger import Ledger
from spark_rl.rollout.parts import Harvest, Part
from spark_rl.rollout.shares import together
from spark_rl.scale.dispatch import Dispatch, Unit
from spark_rl.types import Forest, Spent, Task, Tree

__all__ = ["Crew", "OnWorkers", "on_ray"]


class Crew(Protocol):
    """The workers of a run, by their numbers."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def lost(self) -> int:
        """How many were lost so far, and replaced."""
        ...

    def put(self, weights: ModelState) -> object:
        """Lay weights out for the workers; returns where they are."""
        ...

    async def grow(self, worker: int, part: Part, weights: object) -> Harvest:
        """Let a worker grow a part under the weights that `put` laid out (None: those that it begins with).

        Raises:
            WorkerLost: the worker died or hung; another one is in its place.
        """
        ...

    async def finish(self, forest: int) -> None:
        """Tell all workers that a forest does not grow any more."""
        ...

    def preload(self, worker: int, tasks: Sequence[Task]) -> None:
        """Let a worker begin to get tasks ready."""
        ...


class OnWorkers:
    """Grows forests on a crew."""

    def __init__(self, crew: Crew, *, slots: int = 0) -> None:
        """`slots` is how many trees a worker grows at once; 0: all that it is dealt."""
        self._crew, self._slots = crew, slots
        self._version, self._weights = 0, None
        self._forests = 0
        self._steps: dict[str, int] = {}
        """Steps of the last tree of each task: what the next one is expected to take."""

    async def grow(self, tasks: Sequence[Task], growth: Growth, *, seed: int, iteration: int) -> Forest:
        """One tree for each task; raises what `grow_forest` does."""
        self._forests += 1
        number, version, weights = self._forests, self._version, self._weights
        ledger, clock, lost = Ledger.of(growth.shape, len(tasks)), Clock(Spent()), self._crew.lost
        known = {one.index: one for one in seedlings(tasks, seed, iteration, growth.shape)}
        forest = Forest([], iteration, seed, version=version)
        spent: defaultdict[int, Spent] = defaultdict(Spent)
        planned: Planned | None = None

        async def send(worker: int, unit: Unit) -> Harvest:
            part = Part(number, version, growth, len(tasks), unit.trees, planned and _of(planned, unit))
            harvest = await self._crew.grow(worker, part, weights)
            spent[worker] += harvest.spent
            return harvest

        async def phase(forks: Planned | None) -> Sequence[Known]:
            nonlocal planned
            planned = forks
            for harvest in await dispatch.run(self._units([*known.values()], ledger, growth, forks)):
                known.update((one.index, one) for one in harvest.trees)
            ledger.count({one.index: one.tree.opened for one in known.values()})
            return [known[index] for index in sorted(known)]

        dispatch = Dispatch(self._crew.count, self._slots, send)
        try:
            trees = await in_phases(forest, growth, ledger, clock, phase)
        finally:
            await self._crew.finish(number)
        self._steps |= {one.tree.task.id: len(one.tree.nodes) for one in trees}
        forest.spent = together([clock.spent, *spent.values()])
        forest.spent.restarts += self._crew.lost - lost
        return finished(forest, trees)

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Lay the weights out for the workers; each takes them with its next request."""
        self._version, self._weights = version, self._crew.put(weights)

    def preload(self, tasks: Sequence[Task]) -> None:
        """Let the workers begin to get tasks ready, each a share."""
        for worker in range(self._crew.count):
            if share := tasks[worker :: self._crew.count]:
                self._crew.preload(worker, share)

    def _units(self, trees: Sequence[Grown], ledger: Ledger, growth: Growth, planned: Planned | None) -> list[Unit]:
        """What can be dealt out: trees that grow, or whole pools where trees take leaves from one another."""
        groups: defaultdict[int, list[Grown]] = defaultdict(list)
        for one in trees:
            groups[ledger.pool(one.index) if ledger.shared(growth.branching) else one.index].append(one)
        growing = [group for group in groups.values() if planned is None or any(one.index in planned for one in group)]
        return [Unit(group, sum(self._work(one, planned) for one in group)) for group in growing]

    def _work(self, one: Grown, planned: Planned | None) -> float:
        """Steps that a tree is expected to take in a phase."""
        if planned is None:
            known = self._steps.values()
            return self._steps.get(one.tree.task.id, sum(known) / len(known) if known else 1.0)
        forks = [fork for _, fork in planned.get(one.index, ())]
        return float(sum(fork.extra * (one.tree.horizon - _above(one.tree, fork.node)) for fork in forks))


def _of(planned: Planned, unit: Unit) -> Planned:
    """The forks of a unit's trees."""
    places = {one.index for one in unit.trees}
    return {index: forks for index, forks in planned.items() if index in places}


def _above(tree: Tree, node: int | None) -> int:
    """Steps above a node, itself included."""
    return 0 if node is None else tree.nodes[node].depth


@asynccontextmanager
async def on_ray(
    recipe: Recipe, source: ModelSource, tell: Callable[[str], None], ranks: Ranks
) -> AsyncGenerator[OnWorkers]:
    """Trees grow on actors of Ray, as the recipe's scale says.

    Args:
        recipe: the recipe.
        source: the cold-started model: its folder, which all workers can read.
        tell: receives a sentence when a worker is lost.
        ranks: one process.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: the cluster does not answer, has another version of Ray, or has no room.
    """
    from spark_rl.scale.ray_crew import crew

    share = 1 if recipe.scale.address else max(1, cores() // recipe.scale.workers)  # of this machine
    threads = recipe.threads or share
    async with crew(recipe, replace(source, loaded=None, threads=threads), tell) as workers:
        yield OnWorkers(workers, slots=recipe.scale.slots)
