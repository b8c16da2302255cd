"""Weights from the learner's GPU to vLLM's, by vLLM's own transfer of version 0.32. Not run so far: it needs a GPU.

Invariant: after `send`, every weight of the state is in vLLM's model. `RemoteEngine` proves it by log-probabilities, as it
does after any other way.

vLLM's trainer side is synchronous and calls back four methods of a client; the client runs them in the event loop of the
engine. `ipc` passes handles of memory on the same GPU. `nccl` sends over a group of two: the learner, and vLLM's worker.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal

import torch

from spark_rl.contracts import ModelState
from spark_rl.engines.remote.weights import distinct
from spark_rl.engines.vllm.interface import interface

__all__ = ["Transfer", "opened"]

PEERS = 2
"""The learner and vLLM's worker."""

_base: Any = interface("vllm.distributed.weight_transfer.base")
_factory: Any = interface("vllm.distributed.weight_transfer.factory")


class _Source(_base.WeightSource):
    """The weights of a state, by name (`distinct`)."""

    def __init__(self) -> None:
        self.state: ModelState = {}

    def metadata(self) -> list[Any]:
        """Name, precision and shape of what iteration gives."""
        return [_base.ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in distinct(self.state)]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return distinct(self.state)


class _Client:
    """What vLLM's trainer side asks of the engine; called in another thread than the engine's event loop."""

    def __init__(self, engine: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._engine, self._loop = engine, loop

    def _run(self, call: Any) -> None:
        asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Meet the worker."""
        self._run(self._engine.init_weight_transfer_engine(_base.WeightTransferInitRequest(init_info=init_info)))

    def shutdown_weight_transfer_engine(self) -> None:
        """Part from the worker."""
        self._run(self._engine.shutdown_weight_transfer_engine())

    def start_weight_update(self) -> None:
        """Begin."""
        self._run(self._engine.start_weight_update())

    def update_weights(self, update_info: Any) -> None:
        """Receive."""
        self._run(self._engine.update_weights(_base.WeightTransferUpdateRequest(update_info=update_info)))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End."""
        self._run(self._engine.finish_weight_update(weight_version))


class Transfer:
    """The way to one engine; `opened` makes it."""

    def __init__(self, trainer: Any, source: _Source) -> None:
        self._trainer, self._source = trainer, source

    async def send(self, state: ModelState) -> None:
        """Send weights; vLLM must be awake."""
        self._source.state = state
        await asyncio.to_thread(self._trainer.send_weights)


async def opened(engine: Any, backend: Literal["ipc", "nccl"]) -> Transfer:
    """Connect the learner's GPU with an engine that was started for the same backend."""
    if backend == "ipc":
        start = import_module("vllm.distributed.weight_transfer.ipc_engine").IPCTrainerInitInfo(rank=0, packed=True)
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        start = import_module("vllm.distributed.weight_transfer.nccl_engine").NCCLTrainerInitInfo(
            rank=0, master_address="127.0.0.1", master_port=port, world_size=PEERS
        )
    source, client = _Source(), _Client(engine, asyncio.get_running_loop())
    make = _factory.WeightTransferTrainerFactory.trainer_init
    return Transfer(await asyncio.to_thread(make, start, client=client, source=source), source)
