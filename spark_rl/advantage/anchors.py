"""Credit from repeated states: a step against all steps of its tree that were taken in the same state.

GiGPO (arXiv 2505.10978): steps with one `Node.state_key` form a group, wherever in the tree they lie, and are compared by
their discounted return from there on. With gamma below 1 the step that leads to success sooner is the better one. This is
the step term alone; GiGPO is its `Sum` with `GroupMean`.

With `beta` the backup is bootstrapped: what follows a step is valued not only by what happened after it, but also by what
happened, on average, after that same state elsewhere in the tree:

    Qg(n) = r(n) + gamma * mean over children c of [(1 - beta) Qg(c) + beta * m(key(c))],  m(key) = mean of Qg at the key

swept `sweeps` times from the leaves up, with m as it was before the sweep.
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
    """A(n) = weight * (Qg(n) - m(key)) / std of Qg at the key; 0 where a key has one step or no spread. Weight 1 a node."""

    gamma: float = 0.95
    """Discount of a step."""
    weight: float = 1.0
    """What the credit is multiplied by (GiGPO's omega)."""
    beta: float = 0.0
    """Share of the state's mean in the backup; 0 is GiGPO."""
    sweeps: int = 0
    """Bootstrapped sweeps; 0 is GiGPO."""
    failed: bool = True
    """Whether a state reached by a refused action is an anchor. It need not be the state it looks like: where all
    refusals are answered alike they all share one key."""
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
                means = list(values)  # a step outside all groups stands for its own state
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
        """Nodes by state key, those left out that `failed` says."""
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(tree.nodes):
            if self.failed or node.parent < 0 or tree.nodes[node.parent].admissible:
                groups[node.state_key].append(index)
        return list(groups.values())

    def _backup(self, tree: Tree, means: list[float], beta: float) -> list[float]:
        """One pass from the leaves: reward plus the discounted mean of what the children are worth."""
        below, values = tree.children(), [node.reward for node in tree.nodes]
        for index in range(len(tree.nodes) - 1, -1, -1):
            if below[index]:
                ahead = statistics.fmean((1 - beta) * values[child] + beta * means[child] for child in below[index])
                values[index] += self.gamma * ahead
        return values
