"""Group-relative advantage of the discounted return: the shorter of two successes has the larger advantage."""

from __future__ import annotations

from dataclasses import dataclass

from spark_rl.advantage.credit import deviations, spread
from spark_rl.types import Credit, Tree

__all__ = ["Discounted"]


@dataclass(frozen=True)
class Discounted:
    """A_l = gamma^T_l R_l - mean of the group, divided by the standard deviation when `std` is set.

    T_l is the number of steps of the trajectory.
    """

    gamma: float = 0.95
    std: bool = True
    """Divide by the group's unbiased standard deviation."""

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        steps = [tree.nodes[leaf].depth for leaf in tree.leaves()]
        discounted = [self.gamma**count * total for count, total in zip(steps, tree.returns(), strict=True)]
        return spread(tree, deviations(discounted, std=self.std))
