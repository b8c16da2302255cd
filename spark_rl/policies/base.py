"""The `Policy` contract: whatever proposes the next step.

A local model, a server, an expert and a person all answer the same question: given these requests, what are the
completions? A policy that gives no token ids can act and demonstrate, but cannot be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from spark_rl.types import Completion, Request, Spent

__all__ = ["Policy"]


@runtime_checkable
class Policy(Protocol):
    """Proposes completions for a batch of requests."""

    spent: Spent
    """Running counters; the rollout takes the difference around its own use."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`len(requests)` lists, the i-th with `requests[i].n` completions, in the order of its seeds."""
        ...
