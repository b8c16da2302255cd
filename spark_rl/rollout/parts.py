"""Parts of forests that grow in one process while other processes grow the rest.

Invariants
----------
* A part's request says everything: records of its trees, forks that were granted, settings, and the version of the weights.
  So a request may be repeated in another process when one is lost, and gives the same trees.
* Trees grow under the version of the weights that the request names, or not at all.
* Trees that compete for leaves are in one part, so a part's own trees decide what they may open.
* The cost of a part is told once, with the part.

States of a tree stay here between the phases of its forest, so that a fork starts from a stored state. In a process that
does not have them, replay reaches them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from spark_rl.contracts import Encoder, Engine, Growth, ModelState, Restarts, World
from spark_rl.errors import PolicyFailure
from spark_rl.policies.joint import Joint
from spark_rl.policies.pace import in_rounds
from spark_rl.rollout.clock import Clock
from spark_rl.rollout.grow import let_grow
from spark_rl.rollout.grown import Grown, Planned
from spark_rl.rollout.ledger import Ledger
from spark_rl.rollout.states import States
from spark_rl.rollout.tree import Grove, GrowingTree
from spark_rl.types import Spent

__all__ = ["Grower", "Harvest", "Part"]


@dataclass(frozen=True)
class Part:
    """Trees of a forest that grow in one phase, and all that decides how."""

    forest: int
    """Number of the forest, by which its trees are found again."""
    version: int
    """Version of the weights."""
    growth: Growth
    tasks: int
    """Trees of the whole forest."""
    trees: Sequence[Grown]
    planned: Planned | None
    """Granted forks, by tree; None: all trees grow from the roots. A tree without forks only counts its leaves."""


@dataclass(frozen=True)
class Harvest:
    """A part that has grown."""

    trees: list[Grown]
    spent: Spent


@dataclass
class _Forest:
    """What this process keeps of a forest."""

    states: dict[int, States] = field(default_factory=dict[int, States])
    """Stored states of each tree that was here."""
    clock: Clock = field(default_factory=lambda: Clock(Spent()))
    """Parts that grow side by side are in one phase together."""

    def begin(self, part: Part, world: World, encoder: Encoder | None) -> tuple[Grove, list[GrowingTree]]:
        """The trees of a part that grow, and what they share."""
        ledger = Ledger.of(part.growth.shape, part.tasks)
        ledger.count({record.index: record.tree.opened for record in part.trees})
        grove = Grove(world, part.growth, encoder, ledger, part.tasks, self.clock, Spent())
        growing = [record for record in part.trees if part.planned is None or record.index in part.planned]
        return grove, [GrowingTree(record, grove, self.states.get(record.index)) for record in growing]

    def end(self, grown: Sequence[GrowingTree]) -> None:
        """The trees of a part have grown."""
        self.states |= {tree.index: tree.states for tree in grown}

    def close(self) -> None:
        """Close all states."""
        for states in self.states.values():
            states.close()


class Grower:
    """Grows parts in this process, several at once; a policy that wants large batches gets those of all parts together."""

    def __init__(self, world: World, engine: Engine) -> None:
        """The engine is loaded with the weights of its version."""
        self.world, self.engine = world, engine
        self._joint = Joint(engine) if in_rounds(engine) else None
        self._forests: dict[int, _Forest] = {}
        self._growing = 0
        self._changed = asyncio.Condition()
        self._lost = self._restarts()

    async def grow(self, part: Part, weights: Callable[[], Awaitable[ModelState]]) -> Harvest:
        """Grow a part.

        Args:
            part: the trees.
            weights: gives the weights of the part's version, where the engine has others.

        Raises:
            PolicyFailure: the engine does not have these weights after they were loaded.
            SparkError: what `grow_forest` raises.
        """
        async with self._under(part.version, weights):
            forest = self._forests.setdefault(part.forest, _Forest())
            grove, growing = forest.begin(part, self.world, self.engine.encoder)
            try:
                async with self._joint.inside() if self._joint else nullcontext():
                    await let_grow(grove, self._joint or self.engine, growing, part.planned)
            except BaseException:
                for tree in growing:
                    tree.close()
                raise
            forest.end(growing)
            grove.spent.restarts += self._newly_lost()
            grove.spent.seconds, forest.clock.spent.seconds = forest.clock.spent.seconds, {}
            return Harvest([tree.record() for tree in growing], grove.spent)

    async def finish(self, forest: int) -> None:
        """Forget a forest: its trees do not grow any more."""
        if (ended := self._forests.pop(forest, None)) is not None:
            ended.close()
        if not self._growing:
            await self.engine.clear()

    @asynccontextmanager
    async def _under(self, version: int, weights: Callable[[], Awaitable[ModelState]]) -> AsyncGenerator[None]:
        """Hold the engine at a version; parts that need another one wait until all of this one have ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.engine.version == version or not self._growing)
            if self.engine.version != version:
                await self.engine.load_weights(version, await weights())
            if self.engine.version != version:
                raise PolicyFailure(f"the engine has the weights of version {self.engine.version}, not of {version}")
            self._growing += 1
        try:
            yield
        finally:
            async with self._changed:
                self._growing -= 1
                self._changed.notify_all()

    def _newly_lost(self) -> int:
        """Processes of the world that were replaced since the last call."""
        before, self._lost = self._lost, self._restarts()
        return self._lost - before

    def _restarts(self) -> int:
        return self.world.lost() if isinstance(self.world, Restarts) else 0
