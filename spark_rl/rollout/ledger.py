"""The budget of leaves: how many each tree may open.

Invariants
----------
* A tree never holds more leaves than its cap, counting every leaf that was ever created, and a forest of T tasks never more
  than T * budget. With `TreeShape.counted` "active", finished leaves are not charged.
* Leaves move between the trees of a pool alone (`TreeShape.pool`), so pools may grow in different processes.
* Where the cap is not above the budget, the forest's bound follows from the trees' caps, and trees do not compete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spark_rl.contracts import Branching, PlansOnly
from spark_rl.types import Tree, TreeShape

__all__ = ["Ledger"]


@dataclass
class Ledger:
    """Counts the leaves that a forest may still open."""

    shape: TreeShape
    tasks: int
    """Trees of the forest."""
    pools: list[int]
    """Leaves that the trees of each pool may still open."""

    @classmethod
    def of(cls, shape: TreeShape, tasks: int) -> Ledger:
        """The ledger of a forest with so many tasks."""
        size = shape.pool or max(tasks, 1)
        return cls(shape, tasks, [shape.budget * min(size, tasks - first) for first in range(0, tasks, size)])

    def count(self, opened: Mapping[int, int]) -> None:
        """Charge the leaves that each tree has opened, by the trees' places, and nothing else."""
        self.pools = Ledger.of(self.shape, self.tasks).pools
        for index, leaves in opened.items():
            self.pools[self.pool(index)] -= 0 if self.counts_active else leaves

    def pool(self, index: int) -> int:
        """The pool of a tree, by their places."""
        return index // (self.shape.pool or max(self.tasks, 1))

    @property
    def left(self) -> int:
        """Leaves that the forest may still open."""
        return sum(self.pools)

    @property
    def cap(self) -> int:
        """Most leaves of one tree."""
        return self.shape.cap or self.shape.budget

    @property
    def counts_active(self) -> bool:
        """Whether only leaves that are not finished are charged."""
        return self.shape.counted == "active"

    def shared(self, rule: Branching) -> bool:
        """Whether trees compete for leaves while they grow, so that the order in which they ask decides who gets them."""
        return self.cap > self.shape.budget and not (isinstance(rule, PlansOnly) and rule.plans_only)

    def grant(self, index: int, tree: Tree, wish: int, *, finished: int = 0) -> int:
        """Charge at most `wish` leaves to a tree and to its pool.

        Args:
            index: the tree's place in the forest.
            tree: the number of granted leaves is added to its `opened`.
            wish: how many are wanted.
            finished: leaves of the tree that are not charged any more.

        Returns:
            How many were granted.
        """
        granted = max(0, min(wish, self.cap - (tree.opened - finished), self.pools[self.pool(index)]))
        tree.opened += granted
        self.pools[self.pool(index)] -= 0 if self.counts_active else granted
        return granted
