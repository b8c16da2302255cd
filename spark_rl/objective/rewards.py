"""Scales rewards and charges penalties: from a tree and an estimator to the credit that training uses."""

from __future__ import annotations

from dataclasses import dataclass, replace

from spark_rl.contracts import AdvantageEstimator
from spark_rl.types import Credit, Node, Tree

__all__ = ["Rewards"]


@dataclass(frozen=True)
class Rewards:
    """The scale of rewards, and the penalties of steps that the environment could not use."""

    scale: float = 10.0
    """Factor of raw rewards (the paper gives 10 for a success)."""
    malformed: float = 0.1
    """Penalty of a completion that is not one reasoning block and one action."""
    inadmissible: float = 0.1
    """Penalty of a well-formed action that the environment does not know or cannot carry out."""
    inside: bool = False
    """Subtract penalties from the step's reward, before normalisation, instead of from the advantage of the step's own
    tokens. Before normalisation, the division by the standard deviation makes penalties small in mixed groups, and the only
    signal in failed groups."""

    def penalty(self, node: Node) -> float:
        """The penalty of a step, at least 0."""
        if not node.well_formed:
            return self.malformed
        return 0.0 if node.admissible else self.inadmissible

    def shape(self, tree: Tree) -> Tree:
        """The tree that estimators see: rewards are scaled, and with `inside` the penalties are subtracted."""
        nodes = [
            replace(node, reward=node.reward * self.scale - (self.penalty(node) if self.inside else 0.0))
            for node in tree.nodes
        ]
        return replace(tree, nodes=nodes)

    def credit(self, tree: Tree, estimator: AdvantageEstimator) -> Credit:
        """The credit that the trainer uses: the estimator's credit of the shaped tree, less the penalties of invalid steps.

        A penalty changes the tokens of its invalid step only. It counts once for each trajectory through the step.
        """
        credit = estimator(self.shape(tree))
        if self.inside:
            return credit
        negative = tuple(
            a - self.penalty(node) * w for a, w, node in zip(credit.negative, credit.weight, tree.nodes, strict=True)
        )
        return replace(credit, negative=negative)
