"""Leave-one-out advantage: compares a trajectory with the other trajectories of its group (RLOO, arXiv 2402.14740)."""

from __future__ import annotations

from dataclasses import dataclass

from spark_rl.advantage.credit import deviations, spread
from spark_rl.types import Credit, Tree

__all__ = ["LeaveOneOut"]


@dataclass(frozen=True)
class LeaveOneOut:
    """A_l = R_l - mean of the other returns, an unbiased baseline. A group of one trajectory gets zero.

    The advantage is n / (n - 1) times the distance from the mean of all n returns.
    """

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        away = deviations(tree.returns(), std=False)
        others = max(len(away) - 1, 1)
        return spread(tree, [value * len(away) / others for value in away])
