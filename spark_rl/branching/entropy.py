"""Forks where the policy is unsure: the entropy of what it drew its tokens from, against that of the first steps.

Entropy is measured against the task's own first steps, as in ARPO (arXiv 2507.19849), but as a quotient. A difference in
nats, or a share of the vocabulary's log, has to be tuned again for each model, prompt and stage of training, since most
tokens of an answer are form and as good as certain; the quotient still tells the steps of a policy that has grown sure.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import Literal

from spark_rl.branching.checks import check_width
from spark_rl.errors import UsageError
from spark_rl.types import Forest, Fork, Moment, Node, Tree

__all__ = ["Entropy", "Form", "step_entropy"]

Form = Literal["first", "step"]
"""What stands for a step: its first token's entropy, or the mean over its tokens."""


def step_entropy(node: Node, form: Form) -> float:
    """A step's entropy in nats a token.

    Raises:
        UsageError: the policy did not say how sure it was.
    """
    if not node.entropies:
        raise UsageError(
            "branching needs the entropy of each token, which this policy does not give: use the local engine, or a rule "
            "without entropies (--branching explore-tag)"
        )
    return node.entropies[0] if form == "first" else statistics.fmean(node.entropies)


@dataclass(frozen=True)
class Entropy:
    """Fork a step whose entropy is more than `threshold` times the mean over the tree's first steps.

    First come, first served until the budget is spent. A first step is compared with the mean it is part of.
    """

    threshold: float = 1.5
    """Least quotient of a step's entropy and that of the first steps."""
    form: Form = "step"
    """`first` takes the first token (which says the mode, explore or think), `step` the mean over all tokens."""
    width: int = 2
    """Branching factor B: continuations of a forked step, the first included."""
    at: Moment = "after"
    """`decision` samples the unsure step again, which is what its entropy speaks of; `after` continues from its state."""

    def __post_init__(self) -> None:
        check_width(self.width)
        if self.threshold < 0:
            raise UsageError(f"branching.threshold is {self.threshold}: it must be at least 0")

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Wish for `width - 1` more continuations at an unsure step."""
        start = statistics.fmean(step_entropy(first, self.form) for first in tree.nodes if first.parent < 0)
        unsure = step_entropy(tree.nodes[node], self.form) > self.threshold * start
        return Fork(index, node, self.at, self.width - 1) if unsure else None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Nothing: decided while growing."""
        return []
