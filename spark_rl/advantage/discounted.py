"""Group-relative advantage of the discounted return: of two successes the shorter one is worth more."""

from __future__ import annotations

from dataclasses import dataclass

from spark_rl.advantage.credit import deviations, spread
from spark_rl.types import Credit, Tree

__all__ = ["Discounted"]


@dataclass(frozen=True)
class Discounted:
    """A_l = gamma^T_l R_l against its group's mean, T_l the trajectory's number of steps."""

    gamma: float = 0.95
    std: bool = True
    """Divide by the group's unbiased standard deviation."""

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        steps = [tree.nodes[leaf].depth for leaf in tree.leaves()]
        worth = [self.gamma**count * total for count, total in zip(steps, tree.returns(), strict=True)]
        return spread(tree, deviations(worth, std=self.std))
