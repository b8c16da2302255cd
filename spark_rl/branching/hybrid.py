"""New roots in groups without a success, which a late fork seldom helps; revisits in groups with mixed outcomes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from spark_rl.branching.allocation import allocate, outcomes
from spark_rl.branching.revisits import Revisits
from spark_rl.types import Forest, Fork, Tree

__all__ = ["Hybrid"]


@dataclass(frozen=True)
class Hybrid:
    """Spend the remaining leaves on the tasks that `Revisits` would choose, from the start where no trajectory succeeded."""

    revisits: Revisits = field(default_factory=lambda: Revisits(exclude=True))
    """The rule for groups with mixed outcomes; its `one_by_one` also says whether all leaves are planned at once."""

    @property
    def plans_only(self) -> bool:
        """True: this rule never forks while a tree grows."""
        return True

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Never: this rule waits for outcomes."""
        return None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """One new root or one fork for each remaining leaf."""
        return [
            self.revisits.fork(forest.trees[index], index, rng)
            if any(outcomes(forest.trees[index]))
            else Fork(index, None, "decision", 1)
            for index in allocate(forest, rng, one_by_one=self.revisits.one_by_one)
        ]
