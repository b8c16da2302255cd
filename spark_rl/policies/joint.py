"""A policy that answers several callers at once, as one batch.

Invariant: each caller gets its own answers. The policy behind is called when every caller that is inside waits for it, so
its batches are as large as the callers together can make them. Callers may come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import islice

from spark_rl.contracts import Policy
from spark_rl.types import Completion, Request

__all__ = ["Joint"]

Answers = list[list[Completion]]


class Joint:
    """Joins the requests of the callers that are `inside`."""

    in_rounds = True

    def __init__(self, policy: Policy) -> None:
        """`policy` answers the joined requests."""
        self._policy, self._inside = policy, 0
        self._waiting: list[tuple[Sequence[Request], asyncio.Future[Answers]]] = []

    @asynccontextmanager
    async def inside(self) -> AsyncGenerator[None]:
        """A caller, for as long as the block lasts: nobody is answered while it does not wait."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            await self._answer()

    async def sample(self, requests: Sequence[Request]) -> Answers:
        """The completions of each request; waits until all others who are inside ask too."""
        answer: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._waiting.append((requests, answer))
        await asyncio.sleep(0)  # whoever is about to come in may join
        await self._answer()
        return await answer

    async def _answer(self) -> None:
        """Answer all, if all wait."""
        if not self._waiting or len(self._waiting) < self._inside:
            return
        served, self._waiting = self._waiting, []
        try:
            answers = iter(await self._policy.sample([request for requests, _ in served for request in requests]))
        except Exception as error:
            for _, answer in served:
                if not answer.done():  # a caller may have been cancelled
                    answer.set_exception(error)
            return
        for requests, answer in served:
            mine = list(islice(answers, len(requests)))
            if not answer.done():
                answer.set_result(mine)
