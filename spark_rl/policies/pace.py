"""Whether a policy wants its requests in large batches."""

from __future__ import annotations

from spark_rl.contracts import InRounds, Policy

__all__ = ["in_rounds"]


def in_rounds(policy: Policy) -> bool:
    """Whether a policy wants the requests of all trees in one batch per round; a wrapper passes on its policy's wish."""
    return isinstance(policy, InRounds) and policy.in_rounds
