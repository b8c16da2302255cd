"""Credit per step from the outcomes below the step: compares a step's value with the tree's mean value at the start.

The value of a leaf is its return; the value of any other step is the mean of its children's values. So every child counts
alike, however often the tree forked below the child: siblings are samples of one policy in one state, and the places of
forks must not change the value of this state. On independent trajectories this estimator equals `GroupMean`.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from spark_rl.advantage.credit import per_node
from spark_rl.types import Credit, Tree

__all__ = ["NodeValue", "node_values", "returns_scale"]


@dataclass(frozen=True)
class NodeValue:
    """A(n) = (Q(n) - V0) / std of the leaves' returns; V0 is the mean value of the first steps. Nodes have weight 1.

    A tree whose returns are all equal has no signal and gets zeros.
    """

    std: bool = True
    """Divide by the unbiased standard deviation of the leaves' returns (+ 1e-6)."""

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        if (scale := returns_scale(tree, std=self.std)) == 0.0:
            return per_node([0.0] * len(tree.nodes))
        values = node_values(tree)
        start = statistics.fmean(values[first] for first in tree.children()[-1])
        return per_node([(value - start) / scale for value in values])


def node_values(tree: Tree) -> list[float]:
    """Q of each node: for a leaf the return of its trajectory, for other nodes the mean over their children."""
    values = [0.0] * len(tree.nodes)
    for leaf, total in zip(tree.leaves(), tree.returns(), strict=True):
        values[leaf] = total
    below = tree.children()
    for node in range(len(tree.nodes) - 1, -1, -1):
        if below[node]:
            values[node] = statistics.fmean(values[child] for child in below[node])
    return values


def returns_scale(tree: Tree, *, std: bool) -> float:
    """The divisor of differences of value: 0 where returns are all equal, 1 without `std`."""
    returns = tree.returns()
    if not returns or min(returns) == max(returns):
        return 0.0
    return statistics.stdev(returns) + 1e-6 if std else 1.0
