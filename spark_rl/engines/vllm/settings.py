"""vLLM as a component of a recipe: plain settings, so that a recipe imports neither torch nor vLLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from spark_rl.contracts import Engine, ModelSource
from spark_rl.errors import UsageError, at_least

__all__ = ["Vllm"]


@dataclass(frozen=True)
class Vllm:
    """vLLM, in processes of its own on this machine. Trees grow each at its own pace."""

    cache_gb: float = 2.0
    """Memory of keys and values: of running requests, and of those that are kept for later steps."""
    context: int = 8192
    """Most tokens of a prompt and its completion; the model's own context where that is shorter."""
    batch: int = 128
    """Most completions that are sampled at the same time."""
    compiled: bool = False
    """Compile the model when the engine starts (half a minute), and sample faster afterwards."""
    patience: float = 600.0
    """Seconds without any answer after which the engine counts as hung, and is started again."""
    restarts: int = 3
    """How often an engine that died or hung is started again while one forest grows."""

    def __post_init__(self) -> None:
        at_least("engine", self, context=16, batch=1, restarts=0)
        for name in ("cache_gb", "patience"):
            if not getattr(self, name) > 0:
                raise UsageError(f"engine.{name} is {getattr(self, name)}: it must be more than 0")

    @asynccontextmanager
    async def open(self, source: ModelSource) -> AsyncGenerator[Engine]:
        """An engine that runs the model until the block ends.

        Raises:
            MissingExtra: vLLM is not installed.
            UsageError: vLLM has another version than the ones that are known to work, or cannot run the model.
        """
        from spark_rl.engines.vllm.engine import VllmEngine

        engine = VllmEngine(self, source)
        try:
            await engine.start()
            yield engine
        finally:
            engine.stop()

    def memory(self) -> int:
        """Bytes of the keys and values."""
        return int(self.cache_gb * 2**30)
