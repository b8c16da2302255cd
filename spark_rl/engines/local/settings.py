"""The local engine as a component of a recipe: plain settings, so that a recipe does not import torch."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from spark_rl.contracts import Engine, ModelSource
from spark_rl.errors import at_least

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Local"]


@dataclass(frozen=True)
class Local:
    """A `transformers` model in this process, with keys and values kept along the trees."""

    cache_gb: float = 2.0
    """Most memory of the keys and values that are kept between steps; 0 keeps nothing."""

    def __post_init__(self) -> None:
        at_least("engine", self, cache_gb=0)

    @asynccontextmanager
    async def open(self, source: ModelSource) -> AsyncGenerator[Engine]:
        """An engine around the model in memory, or around a model that is loaded by its name.

        Raises:
            UsageError: there is no such model, or the engine cannot run its architecture.
        """
        from spark_rl.engines.local.engine import LocalEngine
        from spark_rl.models.load import load_pair

        model, tokenizer = source.loaded or load_pair(source)
        engine = LocalEngine(cast("PreTrainedModel", model), tokenizer, cache_bytes=self.memory(), version=source.version)
        try:
            yield engine
        finally:
            engine.forget()

    def memory(self) -> int:
        """Most bytes of the cached keys and values."""
        return int(self.cache_gb * 2**30)
