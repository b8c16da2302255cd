"""Several estimators at once: the weighted sum of their credit, node by node.

Invariants
----------
* A sum of one part equals this part. The order of the parts changes nothing.
* Where parts give a node different weights, the sum adds advantages per row. A part with one advantage per trajectory has
  one row for each trajectory; a part with one advantage per node has this same advantage in each of these rows. So the sum
  equals training one row for each leaf, with the sum of the row's advantages. A node's weight W is the largest weight in
  any part, and the credit of a part with weight w is multiplied by W / w.
* Where a node is one row (weight 1), its positive and negative credit are added to one advantage with one sign, as in
  GiGPO. Where a node stands for several rows, positive and negative credit stay separate: nothing says which rows of two
  parts belong together, and this matters for the clip only.
"""

from __future__ import annotations

from dataclasses import dataclass

from spark_rl.contracts import AdvantageEstimator
from spark_rl.errors import UsageError
from spark_rl.types import Credit, Tree

__all__ = ["Sum"]


@dataclass(frozen=True)
class Sum:
    """A(n) = sum of weights[i] * parts[i](n)."""

    parts: tuple[AdvantageEstimator, ...] = ()
    weights: tuple[float, ...] = ()
    """A factor for each part; empty means 1 for each."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))  # callers may pass lists
        object.__setattr__(self, "weights", tuple(self.weights))
        if self.weights and len(self.weights) != len(self.parts):
            raise UsageError(
                f"advantage.weights has {len(self.weights)} numbers for {len(self.parts)} parts: give one for each"
            )
        if any(weight < 0 for weight in self.weights):
            raise UsageError(f"advantage.weights is {self.weights}: all must be at least 0")

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        if not self.parts:
            raise UsageError("advantage.parts is empty: name at least one estimator, such as GroupMean()")
        credits = [part(tree) for part in self.parts]
        factors = self.weights or (1.0,) * len(credits)
        weight = tuple(max(of_node) for of_node in zip(*(credit.weight for credit in credits), strict=True))
        positive, negative = ([0.0] * len(tree.nodes) for _ in range(2))
        for credit, factor in zip(credits, factors, strict=True):
            for node, (up, down, own) in enumerate(zip(credit.positive, credit.negative, credit.weight, strict=True)):
                share = factor * weight[node] / own if own else 0.0
                positive[node] += share * up
                negative[node] += share * down
        if len(credits) > 1:
            for node in range(len(tree.nodes)):
                if weight[node] == 1.0:
                    net = positive[node] + negative[node]
                    positive[node], negative[node] = max(net, 0.0), min(net, 0.0)
        return Credit(tuple(positive), tuple(negative), weight)
