"""Trees that grow in this process, beside those of other ranks if there are any."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

from spark_rl.common.ranks import ALONE
from spark_rl.contracts import (
    Encoder,
    Engine,
    EngineSettings,
    Growth,
    ModelSource,
    ModelState,
    Policy,
    Ranks,
    Watch,
    World,
)
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.rollout.grow import grow_forest
from spark_rl.rollout.tasks import preload
from spark_rl.types import Forest, Task

__all__ = ["InProcess", "open_executor", "require_ids"]


class InProcess:
    """Grows trees in the process of the policy: an engine, or a policy without a model.

    Each forest starts with an empty cache, so that its log-probabilities do not depend on earlier forests, not even by
    rounding. The cache is cleared after each forest, so that its memory is free for the update.
    """

    def __init__(self, world: World, policy: Policy, *, engine: Engine | None = None, ranks: Ranks = ALONE) -> None:
        """`policy` acts; `engine` is the engine behind the policy, where the policy is not the engine itself.

        With several `ranks` this process grows its share of the trees, and gets the whole forest.
        """
        self.world, self.policy, self.ranks = world, policy, ranks
        self.engine = policy if engine is None and isinstance(policy, Engine) else engine

    @property
    def encoder(self) -> Encoder | None:
        """The engine's encoder; None where the policy reads text."""
        return self.engine.encoder if self.engine else None

    async def grow(
        self, tasks: Sequence[Task], growth: Growth, *, seed: int, iteration: int, watch: Watch | None = None
    ) -> Forest:
        """One tree for each task; raises what `grow_forest` does."""
        try:
            return await grow_forest(
                tasks,
                self.world,
                self.policy,
                growth,
                seed=seed,
                iteration=iteration,
                encoder=self.encoder,
                version=self.engine.version if self.engine else 0,
                watch=watch,
                ranks=self.ranks,
            )
        finally:
            if self.engine:
                await self.engine.clear()

    def preload(self, tasks: Sequence[Task]) -> None:
        """Let the world begin to get tasks ready, if it can; of several ranks each its own share."""
        preload(self.world, tasks[self.ranks.rank :: self.ranks.count])

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Hand the weights to the engine.

        Raises:
            PolicyFailure: the policy has no weights, or its engine cannot take them.
        """
        if self.engine is None:
            raise PolicyFailure("the policy that grows has no weights to be replaced: open the executor with an engine")
        await self.engine.load_weights(version, weights)


@asynccontextmanager
async def open_executor(
    settings: EngineSettings,
    world: World,
    source: ModelSource,
    *,
    around: Callable[[Policy], Policy] = lambda policy: policy,
    ranks: Ranks = ALONE,
) -> AsyncGenerator[InProcess]:
    """The executor of a command, until the block ends: the one way from a recipe's engine to an executor.

    Args:
        settings: the recipe's engine.
        world: makes the environments.
        source: the model.
        around: may wrap the engine in another policy (a vote).
        ranks: the processes that grow forests together; each has an engine of its own.

    Raises:
        MissingExtra: the engine's library is not installed.
        UsageError: the engine cannot run this model.
    """
    async with settings.open(source) as engine:
        yield InProcess(world, around(engine), engine=engine, ranks=ranks)


def require_ids(encoder: Encoder | None) -> None:
    """Refuse an engine whose completions nothing can be learnt from.

    Raises:
        UsageError: the engine reads text, so its completions have no token ids.
    """
    if encoder is None:
        raise UsageError("the recipe's engine gives no token ids, so nothing can be learnt from it: --engine local")
