"""SPARK's rule: a tree forks where the agent's own reasoning says `<explore>` (arXiv 2601.20209, Eq. 4-6)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from spark_rl.branching.checks import check_width
from spark_rl.types import Forest, Fork, Moment, Tree

__all__ = ["ExploreTag"]


@dataclass(frozen=True)
class ExploreTag:
    """Fork every step whose reasoning mode is explore, first come, first served until the budget is spent.

    Eq. 5: a step in explore mode asks for `width` continuations, any other step for one.
    """

    width: int = 2
    """Branching factor B: continuations of an exploring step, the first included."""
    at: Moment = "after"
    """`after` continues from the state after the exploring step (Eq. 6); `decision` samples this step again (Eq. 8)."""

    def __post_init__(self) -> None:
        check_width(self.width)

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Wish for `width - 1` more continuations at an exploring step."""
        if tree.nodes[node].mode != "explore":
            return None
        return Fork(index, node, self.at, self.width - 1)

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Nothing: the paper forks while trees grow."""
        return []
