"""What decides how a tree grows, the policy and the world aside: plain settings, checked where they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spark_rl.branching.base import Branching
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.prompting import Prompt

__all__ = ["Growth", "Sampling", "TreeShape"]


@dataclass(frozen=True)
class TreeShape:
    """How large a tree may grow."""

    budget: int = 8
    """N: leaves a tree on average; a forest of T tasks has at most T * budget."""
    roots: int = 4
    """M: independent first steps."""
    horizon: int = 30
    """K: most steps of a trajectory."""
    cap: int = 0
    """Most leaves of one tree; 0 means `budget`. Larger lets a strategy move leaves between tasks."""
    counted: Literal["created", "active"] = "created"
    """Which leaves are charged to the budget: all that were ever created, or those that are not finished (Eq. 7 to the
    letter), so that groups may outgrow N. Rules that wait for outcomes spend what is left: of `active` leaves nothing is."""

    def __post_init__(self) -> None:
        at_least("tree", self, budget=1, roots=1, horizon=1, cap=0)
        if self.counted not in ("created", "active"):
            raise unknown_name("tree.counted", self.counted, ("created", "active"))
        if self.roots > self.budget:
            raise UsageError(
                f"tree.roots is {self.roots}, more than tree.budget {self.budget}: lower roots or raise the budget"
            )
        if self.cap and self.cap < self.roots:
            raise UsageError(f"tree.cap is {self.cap}, less than tree.roots {self.roots}: raise it, or 0 for the budget")


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    temperature: float = 1.0
    """0 means greedy."""
    max_tokens: int = 512
    """Most tokens of a completion."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UsageError(f"sampling.temperature is {self.temperature}: it must be 0 (greedy) or more")
        if self.max_tokens < 1:
            raise UsageError(f"sampling.max_tokens is {self.max_tokens}: it must be at least 1")


@dataclass(frozen=True)
class Growth:
    """Everything that decides how a tree grows, the policy and the world aside."""

    shape: TreeShape
    branching: Branching
    prompt: Prompt
    sampling: Sampling
