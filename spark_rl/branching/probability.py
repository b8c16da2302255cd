"""Forks at random: the control that shows whether the *place* of a fork matters ("fixed" in the paper's Table 4)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from spark_rl.branching.checks import check_width
from spark_rl.errors import UsageError
from spark_rl.types import Forest, Fork, Moment, Tree

__all__ = ["Probability"]


@dataclass(frozen=True)
class Probability:
    """Fork each step with the same probability, first come, first served until the budget is spent."""

    probability: float = 0.1
    """Probability that a step asks for a fork."""
    width: int = 2
    """Branching factor B: continuations of a forked step, the first included."""
    at: Moment = "after"

    def __post_init__(self) -> None:
        check_width(self.width)
        if not 0 <= self.probability <= 1:
            raise UsageError(f"branching.probability is {self.probability}: it must lie between 0 and 1")

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Wish for a fork with the fixed probability."""
        return Fork(index, node, self.at, self.width - 1) if rng.random() < self.probability else None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Nothing: this rule forks while trees grow."""
        return []
