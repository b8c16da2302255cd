"""The control of `Revisits`: the same leaves for the same tasks, each from the start, so that only the forks are missing."""

from __future__ import annotations

import random
from dataclasses import dataclass

from spark_rl.branching.allocation import allocate
from spark_rl.types import Forest, Fork, Tree

__all__ = ["NewRoots"]


@dataclass(frozen=True)
class NewRoots:
    """Spend the leaves left on new roots, the task chosen as in `Revisits`."""

    one_by_one: bool = False
    """Ask again after each sweep, outcomes of earlier roots in sight; else all new roots run in one phase."""

    @property
    def plans_only(self) -> bool:
        """It never forks while a tree grows."""
        return True

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Never: outcomes come first."""
        return None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """One new root for each leaf to spend."""
        return [Fork(index, None, "decision", 1) for index in allocate(forest, rng, one_by_one=self.one_by_one)]
