"""vLLM as a component of a recipe: plain settings, so that a recipe imports neither torch nor vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spark_rl.contracts import Engine, ModelSource
from spark_rl.errors import UsageError, at_least

if TYPE_CHECKING:
    from spark_rl.engines.remote.host import Host, Model

__all__ = ["Vllm"]


@dataclass(frozen=True)
class Vllm:
    """vLLM, in processes of its own on this machine. Trees grow each at its own pace."""

    cache_gb: float = 2.0
    """Memory of keys and values: of running requests, and of those that are kept for later steps. In training on a GPU, 0
    takes what the learner leaves."""
    context: int = 8192
    """Most tokens of a prompt and its completion; the model's own context where that is shorter."""
    batch: int = 128
    """Most completions that are sampled at the same time."""
    compiled: bool = False
    """Compile the model when the engine starts (half a minute), and sample faster afterwards."""
    device: str = ""
    """The GPU that vLLM takes, as a number for CUDA_VISIBLE_DEVICES; empty: the learner's. New weights go by `nccl` to
    another GPU, by `ipc` on the same, and by a file on a processor."""
    sleep: Literal[0, 1, 2] = 1
    """What vLLM does while the learner works on the same GPU. 0: it keeps its memory. 1: it frees keys and values, and moves
    weights to the processor's memory. 2: it frees weights too, and takes them again from the learner; with adapters as 1."""
    patience: float = 600.0
    """Seconds without any answer after which the engine counts as hung, and is started again."""
    restarts: int = 3
    """How often an engine that died or hung is started again while one forest grows."""

    def __post_init__(self) -> None:
        at_least("engine", self, cache_gb=0, context=16, batch=1, restarts=0)
        if not self.patience > 0:
            raise UsageError(f"engine.patience is {self.patience}: it must be more than 0")
        if self.sleep not in (0, 1, 2):
            raise UsageError(f"engine.sleep is {self.sleep}: choose 0, 1 or 2")
        if self.device and not self.device.isdecimal():
            raise UsageError(f'engine.device is "{self.device}": give the number of a GPU, such as 1, or leave it empty')

    @asynccontextmanager
    async def open(self, source: ModelSource) -> AsyncGenerator[Engine]:
        """An engine that runs the model until the block ends.

        Raises:
            MissingExtra: vLLM is not installed.
            UsageError: vLLM has another version than the ones that are known to work, or cannot run the model.
        """
        from spark_rl.engines.vllm.process import check_version

        check_version()
        from spark_rl.engines.remote.engine import RemoteEngine

        engine = RemoteEngine(source, self._launch, patience=self.patience, restarts=self.restarts)
        try:
            await engine.start()
            yield engine
        finally:
            engine.stop()

    async def _launch(self, model: Model) -> Host:
        from spark_rl.engines.vllm.process import Process

        return await asyncio.to_thread(
            Process,
            model,
            context=self.context,
            cache=self.memory(),
            batch=self.batch,
            compiled=self.compiled,
            device=self.device,
            sleep=self.sleep,
        )

    def memory(self) -> int:
        """Bytes of the keys and values."""
        return int(self.cache_gb * 2**30)
