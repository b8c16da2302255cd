"""Credit at forks alone: compares a step with the other steps that were sampled from the same parent.

The baseline is exact, since siblings start from the very same state. But only steps with a sibling get credit. Alone, this
estimator was harmful in simulation (3 to 17 points below GRPO); use it as a part of `Sum`.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from spark_rl.advantage.credit import per_node
from spark_rl.advantage.node_value import node_values, returns_scale
from spark_rl.types import Credit, Tree

__all__ = ["Siblings"]


@dataclass(frozen=True)
class Siblings:
    """A(n) = (Q(n) - mean of Q over n and its siblings) / std of the leaves' returns. Nodes have weight 1.

    All first steps are siblings.
    """

    std: bool = True
    """Divide by the unbiased standard deviation of the leaves' returns (+ 1e-6), as `NodeValue` does."""

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        advantages = [0.0] * len(tree.nodes)
        if (scale := returns_scale(tree, std=self.std)) != 0.0:
            values = node_values(tree)
            for family in tree.children():
                if len(family) > 1:
                    mean = statistics.fmean(values[child] for child in family)
                    for child in family:
                        advantages[child] = (values[child] - mean) / scale
        return per_node(advantages)
