"""Where trees are grown. Whole trees go over this seam, never steps, so that forks stay beside their engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from spark_rl.contracts import Growth, Policy, World
from spark_rl.engines.local.engine import LocalPolicy
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.rollout.grow import Watch, grow_forest
from spark_rl.types import Forest, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["InProcess"]


class InProcess:
    """Grows trees in this process, with the very model that is trained.

    Each forest starts with an empty cache, so that its log-probabilities do not depend, not even by rounding, on what
    was grown before; and it leaves none, so that the memory is free for the update.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        world: World,
        *,
        cache_gb: float,
        around: Callable[[LocalPolicy], Policy] = lambda engine: engine,
    ) -> None:
        """Make the engine; `around` may put another policy before it (a vote)."""
        self.world = world
        self.engine = LocalPolicy(model, tokenizer, cache_bytes=int(cache_gb * 2**30))
        self.policy = around(self.engine)
        self.encoder = ChatEncoder(tokenizer)

    async def grow(
        self, tasks: Sequence[Task], growth: Growth, *, seed: int, iteration: int, watch: Watch | None = None
    ) -> Forest:
        """One tree for each task."""
        try:
            return await grow_forest(
                tasks, self.world, self.policy, growth, seed=seed, iteration=iteration, encoder=self.encoder, watch=watch
            )
        finally:
            self.engine.clear()

    def load_weights(self) -> None:
        """The model has changed. Nothing to do: it is the model itself that grows, and no cache outlives a forest."""
