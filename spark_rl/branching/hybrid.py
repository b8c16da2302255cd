"""New roots where all have failed, since a late fork seldom rescues such a group; revisits where outcomes are mixed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from spark_rl.branching.allocation import allocate, outcomes
from spark_rl.branching.revisits import Revisits
from spark_rl.types import Forest, Fork, Tree

__all__ = ["Hybrid"]


@dataclass(frozen=True)
class Hybrid:
    """Spend the leaves left on the tasks that `Revisits` would choose: from the start where no trajectory has won."""

    revisits: Revisits = field(default_factory=lambda: Revisits(exclude=True))
    """How groups with mixed outcomes are forked, and whether all is planned at once."""

    @property
    def plans_only(self) -> bool:
        """It never forks while a tree grows."""
        return True

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Never: outcomes come first."""
        return None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """One new root or one fork for each leaf to spend."""
        return [
            self.revisits.fork(forest.trees[index], index, rng)
            if any(outcomes(forest.trees[index]))
            else Fork(index, None, "decision", 1)
            for index in allocate(forest, rng, one_by_one=self.revisits.one_by_one)
        ]
