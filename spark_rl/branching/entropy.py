"""Forks where the policy is uncertain: compares the entropy of a step's token distributions with that of the first steps.

As in ARPO (arXiv 2507.19849), the baseline is the entropy of the task's own first steps; here the comparison is a quotient.
A threshold in nats, or as a share of the vocabulary's log, needs tuning for each model, prompt and stage of training, since
most tokens of a completion are form and almost certain. The quotient still separates the steps of a policy that has become
certain.
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
"""The entropy of a step: `first` is that of its first token, `step` the mean over its tokens."""


def step_entropy(node: Node, form: Form) -> float:
    """The entropy of a step in nats per token.

    Raises:
        UsageError: the policy gave no entropies.
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

    Forks are granted first come, first served until the budget is spent. When a first step is compared, the mean includes
    its own entropy.
    """

    threshold: float = 1.5
    """A step forks when its entropy, divided by the mean entropy of the first steps, is above this."""
    form: Form = "step"
    """`first` takes the entropy of the first token (which decides the mode, explore or think), `step` the mean over all
    tokens."""
    width: int = 2
    """Branching factor B: continuations of a forked step, the first included."""
    at: Moment = "after"
    """`decision` samples the uncertain step again, as its entropy suggests; `after` continues from the state after it."""

    def __post_init__(self) -> None:
        check_width(self.width)
        if self.threshold < 0:
            raise UsageError(f"branching.threshold is {self.threshold}: it must be at least 0")

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Wish for `width - 1` more continuations at an uncertain step."""
        start = statistics.fmean(step_entropy(first, self.form) for first in tree.nodes if first.parent < 0)
        uncertain = step_entropy(tree.nodes[node], self.form) > self.threshold * start
        return Fork(index, node, self.at, self.width - 1) if uncertain else None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Nothing: this rule forks while trees grow."""
        return []
