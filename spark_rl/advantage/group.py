"""Group-relative advantage: compares a trajectory with its group (GRPO; SPARK, arXiv 2601.20209 section 3).

Statistics are over trajectories, not over steps: in mean and deviation, a failure of thirty steps counts as
much as a success of ten. In the gradient, a trajectory still counts once for each of its steps; `by_length` corrects this.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from spark_rl.advantage.credit import deviations, spread
from spark_rl.types import Credit, Tree

__all__ = ["GroupMean"]


@dataclass(frozen=True)
class GroupMean:
    """A_l = R_l - mean of the group, divided by the unbiased standard deviation when `std` is set.

    A group of one trajectory, or a group whose returns are all equal, has no signal and gets zeros.
    """

    std: bool = True
    """Divide by the group's standard deviation (GRPO); without the division, this is Dr. GRPO."""
    by_length: bool = False
    """Multiply by the group's mean number of steps and divide by the trajectory's own. A long failure then has no larger
    gradient than a short success (the 1/|o| of GRPO, arXiv 2402.03300 equation 3, for a loss that averages over tokens)."""
    epsilon: float = 1e-6

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        advantages = deviations(tree.returns(), std=self.std, epsilon=self.epsilon)
        if self.by_length:
            steps = [tree.nodes[leaf].depth for leaf in tree.leaves()]
            usual = statistics.fmean(steps)
            advantages = [value * usual / own for value, own in zip(advantages, steps, strict=True)]
        return spread(tree, advantages)
