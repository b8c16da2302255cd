"""Credit from repeated states: compares a step with all steps of its tree that were taken in the same state.

GiGPO (arXiv 2505.10978): steps with the same `Node.state_key`, anywhere in the tree, form a group and are compared by their
discounted returns from this state on. With gamma below 1, the step that leads to success sooner is the better one. This
estimator is the step term alone; GiGPO is the `Sum` of this term and `GroupMean`.

With `beta` the backup is bootstrapped. The value after a step then comes from the outcomes after this step and, with weight
`beta`, from the mean of the outcomes after the same state elsewhere in the tree:

    Qg(n) = r(n) + gamma * mean over children c of [(1 - beta) Qg(c) + beta * m(key(c))],  m(key) = mean of Qg at the key

This backup runs `sweeps` times from the leaves up; each sweep uses the means m from before the sweep.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass

from spark_rl.advantage.credit import deviations, per_node
from spark_rl.errors import UsageError
from spark_rl.types import Credit, Tree

__all__ = ["Anchors"]


@dataclass(frozen=True)
class Anchors:
    """A(n) = weight * (Qg(n) - m(key)) / std of Qg at the key; 0 where a key has one step or no spread.

    Nodes have weight 1.
    """

    gamma: float = 0.95
    """Discount factor for each step."""
    weight: float = 1.0
    """Factor of the credit (GiGPO's omega)."""
    beta: float = 0.0
    """Weight of the state's mean in the backup; 0 is GiGPO."""
    sweeps: int = 0
    """Number of bootstrapped sweeps; 0 is GiGPO."""
    failed: bool = True
    """Whether a state after a refused action is an anchor. Where an environment answers all refusals alike, different
    states after refusals share one key."""
    std: bool = True
    """Divide by the unbiased standard deviation at the key (+ 1e-6)."""

    def __post_init__(self) -> None:
        for name, value in (("gamma", self.gamma), ("beta", self.beta)):
            if not 0 <= value <= 1:
                raise UsageError(f"advantage.{name} is {value}: it must lie between 0 and 1")
        if self.sweeps < 0:
            raise UsageError(f"advantage.sweeps is {self.sweeps}: it must be at least 0")

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        groups = self._groups(tree)
        values = self._backup(tree, [0.0] * len(tree.nodes), 0.0)
        if self.beta > 0:
            for _ in range(self.sweeps):
                means = list(values)  # for a step outside all groups, its own value is the mean
                for group in groups:
                    mean = statistics.fmean(values[node] for node in group)
                    for node in group:
                        means[node] = mean
                values = self._backup(tree, means, self.beta)
        advantages = [0.0] * len(tree.nodes)
        for group in groups:
            for node, away in zip(group, deviations([values[node] for node in group], std=self.std), strict=True):
                advantages[node] = self.weight * away
        return per_node(advantages)

    def _groups(self, tree: Tree) -> list[list[int]]:
        """Nodes grouped by state key; without `failed`, states after refused actions are left out."""
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(tree.nodes):
            if self.failed or node.parent < 0 or tree.nodes[node.parent].admissible:
                groups[node.state_key].append(index)
        return list(groups.values())

    def _backup(self, tree: Tree, means: list[float], beta: float) -> list[float]:
        """One pass from the leaves up: a node's reward plus the discounted mean value of its children."""
        below, values = tree.children(), [node.reward for node in tree.nodes]
        for index in range(len(tree.nodes) - 1, -1, -1):
            if below[index]:
                ahead = statistics.fmean((1 - beta) * values[child] + beta * means[child] for child in below[index])
                values[index] += self.gamma * ahead
        return values
