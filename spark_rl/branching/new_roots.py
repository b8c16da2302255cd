"""The control for `Revisits`: the same tasks get the same number of leaves, but every new leaf starts at the root."""

from __future__ import annotations

import random
from dataclasses import dataclass

from spark_rl.branching.allocation import allocate
from spark_rl.types import Forest, Fork, Tree

__all__ = ["NewRoots"]


@dataclass(frozen=True)
class NewRoots:
    """Spend the remaining leaves on new roots of the tasks that `Revisits` would choose."""

    one_by_one: bool = False
    """Plan one sweep at a time, with the outcomes of earlier sweeps; else all new roots run in one phase."""

    @property
    def plans_only(self) -> bool:
        """True: this rule never forks while a tree grows."""
        return True

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Never: this rule waits for outcomes."""
        return None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """One new root for each remaining leaf."""
        return [Fork(index, None, "decision", 1) for index in allocate(forest, rng, one_by_one=self.one_by_one)]
