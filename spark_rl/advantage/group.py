"""Group-relative advantage: a trajectory against the others of its tree (GRPO; SPARK, arXiv 2601.20209 section 3).

Statistics are taken over trajectories, not over steps: a failure of thirty steps weighs as much as a success of
ten (design rule 3).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from spark_rl.advantage.base import spread
from spark_rl.types import Credit, Tree

__all__ = ["GroupMean"]


@dataclass(frozen=True)
class GroupMean:
    """A_l = (R_l - mean of the group), divided by the unbiased standard deviation when `std` is set.

    A group of one, or one whose returns are all equal, has no signal and gets zeros.
    """

    std: bool = True
    """Divide by the group's standard deviation (GRPO); without it, Dr. GRPO."""
    epsilon: float = 1e-6

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        returns = tree.returns()
        mean = statistics.fmean(returns)
        spreads = statistics.stdev(returns) if len(returns) > 1 else 0.0
        if spreads == 0.0:
            return spread(tree, [0.0] * len(returns))
        scale = spreads + self.epsilon if self.std else 1.0
        return spread(tree, [(value - mean) / scale for value in returns])
