"""How a policy wants to be asked."""

from __future__ import annotations

from spark_rl.contracts import InRounds, Policy

__all__ = ["in_rounds"]


def in_rounds(policy: Policy) -> bool:
    """Whether a policy wants to see what all trees ask as one batch a round; a wrapper wants what its policy wants."""
    return isinstance(policy, InRounds) and policy.in_rounds
