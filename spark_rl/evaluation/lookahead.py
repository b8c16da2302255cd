"""Test-time branching: a tree grows in forks of the environment, then one of its trajectories is chosen and counts.

Invariants
----------
* An episode is one trajectory, and what it came to is all that is judged. The others are look-ahead: their cost is counted,
  their outcome is not.
* No rule looks at a reward, a success or whether an episode has ended well: rules that fork by outcomes do not (`Ahead`).
* The leftmost trajectory of a tree has the seeds of the trajectory that is played without branching. It wins ties, and tells
  beside each choice what there would have been without (`alone`), from the same samples.
* Trees do not share leaves, so that what a tree is does not depend on its neighbours.

The environment must be one that can be forked: the agent tries in copies what it then does in earnest.
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
"""From a tree to the leaf whose trajectory counts."""


@dataclass(frozen=True)
class Ahead:
    """Another rule, asked only while trees grow: what it would do with outcomes in sight is left out."""

    rule: Branching

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """What the rule says."""
        return self.rule.after_step(tree, index, node, rng)

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Nothing."""
        return []


def ahead(growth: Growth, temperature: float) -> Growth:
    """How a tree is grown to choose from: as in training, at evaluation's temperature.

    Raises:
        UsageError: it is 0, at which all branches are one.
    """
    if temperature == 0:
        raise UsageError("temperature is 0, at which all branches are the same: raise it, or leave --choose out")
    sampling = Sampling(temperature, growth.sampling.max_tokens)
    return Growth(replace(growth.shape, cap=0), Ahead(growth.branching), growth.prompt, sampling)


def majority(tree: Tree) -> int:
    """The leaf that the leaves elect, step by step: each votes for its action, and those stay in that took the modal one.

    A trajectory that has ended votes for that. Every first step has one vote, and a fork divides it among its branches, so
    that what was forked often has no more say than the policy gave it: what goes wrong explores more, and so is forked more.
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
        PolicyFailure: the policy gave none.
    """
    return max(_leaves(tree), key=lambda leaf: mean_logprob([tree.nodes[i].logprobs for i in tree.trajectory(leaf)]))


CHOICES: dict[str, Choose] = {"majority": majority, "likelihood": likelihood}
"""By name on the command line."""


def by_rule(tree: Tree) -> dict[str, bool]:
    """Whether the leaf that a rule chooses succeeded, of each rule that the policy's completions can be asked by.

    One tree answers for all rules: what is dear about them is to grow it.
    """
    found: dict[str, bool] = {}
    for name, choose in CHOICES.items():
        with contextlib.suppress(PolicyFailure):
            found[name] = tree.nodes[choose(tree)].success
    return found


def alone(tree: Tree) -> int:
    """The leaf of the trajectory that would have been played without branching."""
    return _leaves(tree)[0]


def along(tree: Tree, leaf: int) -> Tree:
    """A trajectory as a tree of its own."""
    nodes = [replace(tree.nodes[index], parent=depth - 1) for depth, index in enumerate(tree.trajectory(leaf))]
    return Tree(tree.task, tree.observation, tree.actions, nodes, opened=1, cap=1, horizon=tree.horizon)


def _votes(tree: Tree) -> list[Fraction]:
    """What each node has of its first step's vote; exact, so that ties are."""
    below, votes = tree.children(), list[Fraction]()
    for node in tree.nodes:  # parents come before their children
        votes.append(Fraction(1) if node.parent < 0 else votes[node.parent] / len(below[node.parent]))
    return votes


def _leaves(tree: Tree) -> list[int]:
    """From left to right."""
    return sorted(tree.leaves(), key=lambda leaf: tree.nodes[leaf].path)
