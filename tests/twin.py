"""An engine as somebody else would write one: a file of its own, known to the command line as `twin:Twin`.

It samples from a copy of the model that it is given, so that it has only those weights that were handed to it.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from spark_rl.contracts import Engine, ModelSource, ModelState
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.models.load import load_pair
from spark_rl.types import Completion, Request

__all__ = ["Twin"]

LOADED: list[int] = []
"""Versions of the weights that engines of this process were given, in order."""


class _Engine(LocalEngine):
    async def load_weights(self, version: int, weights: ModelState) -> None:
        LOADED.append(version)
        await super().load_weights(version, weights)


@dataclass(frozen=True)
class Twin:
    """Samples from a copy of the model."""

    cache_gb: float = 0.1
    words: tuple[str, ...] = field(default=())
    """Not used; shows that fields of any type become options."""

    @asynccontextmanager
    async def open(self, source: ModelSource) -> AsyncGenerator[Engine]:
        """An engine around a copy."""
        model, tokenizer = source.loaded or load_pair(source)
        own: Any = copy.deepcopy(model)
        yield _Engine(own, tokenizer, cache_bytes=self.memory(), version=source.version)

    def memory(self) -> int:
        """Bytes of kept keys and values."""
        return int(self.cache_gb * 2**30)


@dataclass(frozen=True)
class Mute:
    """An engine that reads text and gives no token ids, as a server does."""

    @asynccontextmanager
    async def open(self, source: ModelSource) -> AsyncGenerator[Engine]:
        """It answers with a look around."""
        yield _Text()

    def memory(self) -> int:
        """None."""
        return 0


class _Text:
    encoder = None
    version = 0

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        return [[Completion("<think>Look.</think><action>look</action>")] * request.n for request in requests]

    async def load_weights(self, version: int, weights: ModelState) -> None: ...

    async def clear(self) -> None: ...
