"""Test-time branching: a tree grows in forks of the environment, then a rule chooses the trajectory that counts.

Invariants
----------
* An episode is the chosen trajectory, and only its outcome counts. The other trajectories are look-ahead: their cost is
  counted, their outcome is not.
* No rule uses a reward, a success or the end of an episode. Rules that fork by outcomes do not fork here (`Ahead`).
* The leftmost trajectory of a tree has the seeds of the trajectory without branching. It wins ties, and it gives the result
  without branching (`alone`) from the same samples.
* Trees do not share leaves, so that a tree does not depend on its neighbours.

The environment must support forks: the agent tries actions in copies of the state before it takes one.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from spark_rl.contracts import Branching, Growth
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.policies.voting import mean_logprob, modal
from spark_rl.types import Forest, Fork, Sampling, Tree

__all__ = ["CHOICES", "Ahead", "Choose", "ahead", "alone", "along", "by_rule", "likelihood", "majority"]

Choose = Callable[[Tree], int]
"""A rule of choosing: returns the leaf whose trajectory counts."""


@dataclass(frozen=True)
class Ahead:
    """A branching rule without its part that sees outcomes: it is called only while trees grow."""

    rule: Branching

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """The fork of the wrapped rule."""
        return self.rule.after_step(tree, index, node, rng)

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """No forks."""
        return []


def ahead(growth: Growth, temperature: float) -> Growth:
    """The growth of a tree to choose from: as in training, at the temperature of evaluation.

    Raises:
        UsageError: the temperature is 0, at which all branches are the same.
    """
    if temperature == 0:
        raise UsageError("temperature is 0, at which all branches are the same: raise it, or leave --choose out")
    sampling = Sampling(temperature, growth.sampling.max_tokens)
    return Growth(replace(growth.shape, cap=0), Ahead(growth.branching), growth.prompt, sampling)


def majority(tree: Tree) -> int:
    """The leaf that a majority vote chooses: at each step, only leaves with the modal action remain.

    A trajectory that has ended votes for its end. Every first step has one vote, and a fork divides the vote among its
    branches, so that a part with many forks has no more weight than the policy gave it. Without this, failing trajectories
    would win, since they explore more and fork more.
    """
    left = _leaves(tree)
    paths = {leaf: tree.trajectory(leaf) for leaf in left}
    votes = _votes(tree)
    for depth in range(max(map(len, paths.values()))):
        ballots = [tree.nodes[paths[leaf][depth]].action if depth < len(paths[leaf]) else None for leaf in left]
        elected = modal(ballots, [votes[leaf] for leaf in left])
        left = [leaf for leaf, ballot in zip(left, ballots, strict=True) if ballot == elected]
    return left[0]


def likelihood(tree: Tree) -> int:
    """The leaf whose trajectory has the highest mean log-probability of a token.

    Raises:
        PolicyFailure: the policy gave no log-probabilities.
    """
    return max(_leaves(tree), key=lambda leaf: mean_logprob([tree.nodes[i].logprobs for i in tree.trajectory(leaf)]))


CHOICES: dict[str, Choose] = {"majority": majority, "likelihood": likelihood}
"""Rules by their names on the command line."""


def by_rule(tree: Tree) -> dict[str, bool]:
    """Whether the chosen leaf succeeded, for each rule that applies to the completions of the policy.

    All rules use one tree, since growing the tree is the cost.
    """
    outcomes: dict[str, bool] = {}
    for name, choose in CHOICES.items():
        with contextlib.suppress(PolicyFailure):
            outcomes[name] = tree.nodes[choose(tree)].success
    return outcomes


def alone(tree: Tree) -> int:
    """The leaf of the trajectory without branching."""
    return _leaves(tree)[0]


def along(tree: Tree, leaf: int) -> Tree:
    """A trajectory as a tree of its own."""
    nodes = [replace(tree.nodes[index], parent=depth - 1) for depth, index in enumerate(tree.trajectory(leaf))]
    return Tree(tree.task, tree.observation, tree.actions, nodes, opened=1, cap=1, horizon=tree.horizon)


def _votes(tree: Tree) -> list[Fraction]:
    """The share of each node in the vote of its first step; fractions, so that ties are exact."""
    below, votes = tree.children(), list[Fraction]()
    for node in tree.nodes:  # parents come before their children
        votes.append(Fraction(1) if node.parent < 0 else votes[node.parent] / len(below[node.parent]))
    return votes


def _leaves(tree: Tree) -> list[int]:
    """The leaves from left to right."""
    return sorted(tree.leaves(), key=lambda leaf: tree.nodes[leaf].path)
