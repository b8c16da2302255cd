"""The `AdvantageEstimator` contract: a pure function from a tree to the credit of its nodes.

Estimators see the tree with rewards already scaled (`Rewards.shape`) and know nothing of penalties, tokens or
losses, so that each fits in one small file. Credit is returned per node (design rule 2); estimators that think per
trajectory use `spread` (or `spread_rows`, where its steps differ), those that think per node `per_node`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from spark_rl.types import Credit, Node, Tree

__all__ = ["AdvantageEstimator", "Rewards", "deviations", "per_node", "spread", "spread_rows"]


@runtime_checkable
class AdvantageEstimator(Protocol):
    """Callable[[Tree], Credit]: frozen values whose fields are their settings."""

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        ...


def spread(tree: Tree, advantages: Sequence[float]) -> Credit:
    """Credit of the nodes when each trajectory has one advantage: sums over the leaves below, positive and negative apart.

    Args:
        tree: the tree.
        advantages: one number a trajectory, in the order of `tree.leaves()`.
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
    """Credit of the nodes when each step of each trajectory has its own advantage: what training one row of each learns.

    Args:
        tree: the tree.
        rows: one list a trajectory, in the order of `tree.leaves()`; one number a step, first step first.
    """
    positive, negative = ([0.0] * len(tree.nodes) for _ in range(2))
    for leaf, row in zip(tree.leaves(), rows, strict=True):
        for node, advantage in zip(tree.trajectory(leaf), row, strict=True):
            positive[node] += max(advantage, 0.0)
            negative[node] += min(advantage, 0.0)
    return Credit(tuple(positive), tuple(negative), tuple(map(float, tree.leaves_below())))


def per_node(advantages: Sequence[float]) -> Credit:
    """Credit when each node has one advantage, however many trajectories pass through it: weight 1."""
    return Credit(
        tuple(max(advantage, 0.0) for advantage in advantages),
        tuple(min(advantage, 0.0) for advantage in advantages),
        (1.0,) * len(advantages),
    )


def deviations(values: Sequence[float], *, std: bool, epsilon: float = 1e-6) -> list[float]:
    """Distance of each value from their mean, in units of their unbiased standard deviation (+ `epsilon`) when `std` is set.

    Values that are all equal, a single one included, have none: zeros, to the last digit.
    """
    if not values or min(values) == max(values):
        return [0.0] * len(values)
    mean = statistics.fmean(values)
    scale = statistics.stdev(values) + epsilon if std else 1.0
    return [(value - mean) / scale for value in values]


@dataclass(frozen=True)
class Rewards:
    """What an outcome is worth, and what a step costs that the environment could not use."""

    scale: float = 10.0
    """Raw rewards are multiplied by this (10 for a success in the paper)."""
    malformed: float = 0.1
    """Penalty of a completion that is not one reasoning block and one action."""
    inadmissible: float = 0.1
    """Penalty of a well-formed action that the environment does not know or cannot carry out."""
    inside: bool = False
    """Charge penalties to the step's reward, before normalisation (where a division by the standard deviation makes
    them count for little in mixed groups and for everything in failed ones), instead of to the step's own tokens."""

    def penalty(self, node: Node) -> float:
        """The price of this step: at least 0."""
        if not node.well_formed:
            return self.malformed
        return 0.0 if node.admissible else self.inadmissible

    def shape(self, tree: Tree) -> Tree:
        """The tree that estimators see: rewards scaled, penalties taken off when they belong inside."""
        nodes = [
            replace(node, reward=node.reward * self.scale - (self.penalty(node) if self.inside else 0.0))
            for node in tree.nodes
        ]
        return replace(tree, nodes=nodes)

    def credit(self, tree: Tree, estimator: AdvantageEstimator) -> Credit:
        """What the trainer uses: the estimator's credit of the shaped tree, less each invalid step's penalty.

        The penalty touches the tokens of the invalid step only and is counted once for each trajectory through it.
        """
        credit = estimator(self.shape(tree))
        if self.inside:
            return credit
        negative = tuple(
            a - self.penalty(node) * w for a, w, node in zip(credit.negative, credit.weight, tree.nodes, strict=True)
        )
        return replace(credit, negative=negative)
