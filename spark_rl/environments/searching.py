"""What experts that search have in common: what a decision is, and when it is said to explore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spark_rl.prompting import respond
from spark_rl.types import Completion

__all__ = ["Decision", "said"]


@dataclass(frozen=True)
class Decision:
    """What an expert does, why, and whether that was a search, and an open choice."""

    action: str
    reason: str
    search: bool = False
    """What is needed is not located yet."""
    open_choice: bool = False
    """Where to look is open: none of the places left weighs more than the others together."""


def said(decision: Decision, tags: Literal["sparse", "dense"], *, first: bool) -> Completion:
    """The answer that a decision is, in its mode.

    `dense`: every step of a search explores, opening doors included. `sparse`: the pivots, where the next place to look is
    an open choice, except the first step, as forks there would spend the whole budget on the start. All others think.
    """
    explore = decision.search if tags == "dense" else decision.open_choice and not first
    return Completion(respond("explore" if explore else "think", decision.reason, decision.action))
