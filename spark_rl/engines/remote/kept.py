"""A host that is started again when it dies or hangs.

Invariant: a request is answered, or the run stops with a sentence. Requests under way when a host is lost are asked again of
the next one; where seeds alone decide the answers, they are the same.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from spark_rl.engines.remote.host import Answer, Dead, Host
from spark_rl.errors import PolicyFailure

__all__ = ["Kept"]


class Kept:
    """The present host."""

    def __init__(self, begin: Callable[[], Awaitable[Host]], *, patience: float, restarts: int) -> None:
        """Nothing is started yet.

        Args:
            begin: starts a host with the weights of the present version.
            patience: seconds without any answer after which the host counts as hung.
            restarts: how often a host that died or hung is started again before `renew`.
        """
        self._begin, self._patience, self._most = begin, patience, restarts
        self._host: Host | None = None
        self._restarts = 0
        self._names = itertools.count()
        self.answers, self._answered = 0, time.monotonic()
        self.lock = asyncio.Lock()
        """Held while the host is replaced or woken up."""

    @property
    def host(self) -> Host:
        """The host that runs now."""
        assert self._host is not None, "the engine was started"
        return self._host

    async def start(self) -> None:
        """Start the first host."""
        self._host = await self._begin()

    def stop(self) -> None:
        """End the host."""
        if self._host is not None:
            self._host.stop()
            self._host = None

    def renew(self) -> None:
        """Count restarts anew."""
        self._restarts = 0

    async def ask(self, prompt: Sequence[int], **settings: Any) -> tuple[Answer, int]:
        """The answer, from another host where one was lost, and how many hosts were replaced for it.

        Args:
            prompt: token ids.
            settings: the other arguments of `Host.ask`, but for the request's name.

        Raises:
            PolicyFailure: the host died or hung again and again.
        """
        restarts = 0
        while True:
            host = self.host
            try:
                answer = await self._watched(host.ask(prompt, name=str(next(self._names)), **settings))
            except Dead as lost:
                restarts += await self.replace(host, lost)
            else:
                self.answers, self._answered = self.answers + 1, time.monotonic()
                return answer, restarts

    async def _watched(self, asking: Coroutine[Any, Any, Answer]) -> Answer:
        """The answer, unless nothing at all is answered for `patience` seconds."""
        task, began = asyncio.ensure_future(asking), time.monotonic()
        try:
            while True:
                since = max(began, self._answered)
                done, _ = await asyncio.wait([task], timeout=since + self._patience - time.monotonic())
                if done:
                    return task.result()
                if time.monotonic() - max(began, self._answered) >= self._patience:
                    raise Dead(f"has answered nothing for {self._patience:g} s")
        finally:
            task.cancel()

    async def replace(self, host: Host, lost: Dead) -> int:
        """Start another host, unless another request that lost the same one has done so; how many were started.

        Raises:
            PolicyFailure: too many were started already.
        """
        async with self.lock:
            if self._host is not host:
                return 0
            host.stop()
            if self._restarts == self._most:
                raise PolicyFailure(
                    f"the engine {lost}, {self._restarts} restarts included (engine.restarts): is there enough memory? A "
                    "smaller engine.cache_gb or engine.batch needs less"
                )
            self._restarts += 1
            self._host = await self._begin()
            return 1
