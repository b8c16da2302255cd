"""Forks at every step: the control without any criterion. Combine it with `Paced`, or the budget is spent at step 1."""

from __future__ import annotations

import random
from dataclasses import dataclass

from spark_rl.branching.checks import check_width
from spark_rl.types import Forest, Fork, Moment, Tree

__all__ = ["EveryStep"]


@dataclass(frozen=True)
class EveryStep:
    """Fork every step, first come, first served until the budget is spent."""

    width: int = 2
    """Branching factor B: continuations of each step, the first included."""
    at: Moment = "after"

    def __post_init__(self) -> None:
        check_width(self.width)

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Wish for `width - 1` more continuations."""
        return Fork(index, node, self.at, self.width - 1)

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Nothing: this rule forks while trees grow."""
        return []
