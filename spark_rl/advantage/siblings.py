"""Credit at forks alone: a step against the other steps sampled in the same place of the same tree.

The baseline is exact, the very state, but only steps with a sibling learn anything: alone it was harmful in simulation
(-3 to -17 points against GRPO); it is there to be mixed in with `Sum`.
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
    """A(n) = (Q(n) - mean of Q over n and its siblings) / std of the leaves' returns. First steps are siblings. Weight 1."""

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
