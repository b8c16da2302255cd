"""Helpers that the estimators share: from advantages of trajectories, rows or nodes to the credit of nodes.

An estimator gets a tree whose rewards are already scaled (`Rewards.shape`), and does not see penalties, tokens or losses,
so each fits in one small file. Every estimator returns its credit per node. An estimator with one advantage
per trajectory uses `spread`; one whose advantage differs between the steps of a trajectory uses `spread_rows`; one with an
advantage per node uses `per_node`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from spark_rl.types import Credit, Tree

__all__ = ["deviations", "per_node", "spread", "spread_rows"]


def spread(tree: Tree, advantages: Sequence[float]) -> Credit:
    """Credit of the nodes when each trajectory has one advantage: two sums over the leaves below a node.

    One sum is over the positive advantages, the other over the negative ones.

    Args:
        tree: the tree.
        advantages: one number for each trajectory, in the order of `tree.leaves()`.
    """
    positive, negative, weight = ([0.0] * len(tree.nodes) for _ in range(3))
    for leaf, advantage in zip(tree.leaves(), advantages, strict=True):
        positive[leaf], negative[leaf], weight[leaf] = max(advantage, 0.0), min(advantage, 0.0), 1.0
    for index in range(len(tree.nodes) - 1, -1, -1):
        if (parent := tree.nodes[index].parent) >= 0:
            positive[parent] += positive[index]
            negative[parent] += negative[index]
            weight[parent] += weight[index]
    return Credit(tuple(positive), tuple(negative), tuple(weight))


def spread_rows(tree: Tree, rows: Sequence[Sequence[float]]) -> Credit:
    """Credit of the nodes when each step of each trajectory has its own advantage.

    Training with this credit equals training one copy of each trajectory.

    Args:
        tree: the tree.
        rows: one list for each trajectory, in the order of `tree.leaves()`; one number for each step, first step first.
    """
    positive, negative = ([0.0] * len(tree.nodes) for _ in range(2))
    for leaf, row in zip(tree.leaves(), rows, strict=True):
        for node, advantage in zip(tree.trajectory(leaf), row, strict=True):
            positive[node] += max(advantage, 0.0)
            negative[node] += min(advantage, 0.0)
    return Credit(tuple(positive), tuple(negative), tuple(map(float, tree.leaves_below())))


def per_node(advantages: Sequence[float]) -> Credit:
    """Credit of the nodes when each node has one advantage and weight 1, however many trajectories pass through the node."""
    return Credit(
        tuple(max(advantage, 0.0) for advantage in advantages),
        tuple(min(advantage, 0.0) for advantage in advantages),
        (1.0,) * len(advantages),
    )


def deviations(values: Sequence[float], *, std: bool, epsilon: float = 1e-6) -> list[float]:
    """Distance of each value from the mean; with `std`, divided by the unbiased standard deviation plus `epsilon`.

    Values that are all equal (or a single value) give zeros, exact to the last digit.
    """
    if not values or min(values) == max(values):
        return [0.0] * len(values)
    mean = statistics.fmean(values)
    scale = statistics.stdev(values) + epsilon if std else 1.0
    return [(value - mean) / scale for value in values]
