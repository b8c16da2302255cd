"""What an outcome is worth and what an unusable step costs: from a tree and an estimator to the credit that is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

from spark_rl.contracts import AdvantageEstimator
from spark_rl.types import Credit, Node, Tree

__all__ = ["Rewards"]


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
