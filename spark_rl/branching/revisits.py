"""Forks after the outcomes: go back to a step of a finished trajectory and take it again.

For a state of value V, another try below a failure gives one unit of gradient with probability V, below a success with
probability 1 - V: going back where the rarer outcome was had teaches most (the simulation behind `docs/algorithms.md`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from spark_rl.branching.allocation import allocate
from spark_rl.branching.entropy import step_entropy
from spark_rl.types import Forest, Fork, Tree

__all__ = ["Revisits"]


@dataclass(frozen=True)
class Revisits:
    """Spend the leaves left on steps sampled again: the task by `allocate`, its trajectory by outcome, its step by chance.

    Roots need a smaller `tree.roots` than `tree.budget`; `tree.cap` (say twice the budget) lets leaves move between tasks.
    A trajectory's last step is never forked; a tree in which every trajectory has only one gets a new root instead.
    """

    one_by_one: bool = False
    """Ask again after each sweep, outcomes of earlier forks in sight; else all forks run in one phase, which is faster."""
    rarer: bool = True
    """Go back in trajectories with the rarer outcome, by a coin where both are as frequent; else in any."""
    steps: Literal["uniform", "entropy"] = "uniform"
    """`uniform` over the trajectory's steps, or by `entropy` (mean over the step's tokens) times depth."""
    tagged: bool = False
    """Only steps in explore mode, in trees that have one to go back to."""
    exclude: bool = False
    """Do not take again an action already taken from that state; `resampling` says what that does to on-policyness."""

    @property
    def plans_only(self) -> bool:
        """It never forks while a tree grows."""
        return True

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Never: outcomes come first."""
        return None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """One fork for each leaf to spend."""
        return [self.fork(forest.trees[index], index, rng) for index in allocate(forest, rng, one_by_one=self.one_by_one)]

    def fork(self, tree: Tree, index: int, rng: random.Random) -> Fork:
        """One more leaf for this tree.

        Raises:
            UsageError: `steps` is entropy and the policy gave none.
        """
        paths = self._paths(tree, rng)
        if not paths:
            return Fork(index, None, "decision", 1)
        path = rng.choice(paths)
        weights: list[float] | None = None
        if self.steps == "entropy":
            weights = [step_entropy(tree.nodes[step], "step") * tree.nodes[step].depth for step in path]
        step = rng.choices(path, weights if weights and sum(weights) > 0 else None)[0]
        return Fork(index, step, "decision", 1, self.exclude)

    def _paths(self, tree: Tree, rng: random.Random) -> list[list[int]]:
        """Steps to go back to, by trajectory, among those with the outcome to go back to."""
        # A trajectory's last step is finished or at the horizon: nothing may fork there.
        paths = [(tree.nodes[leaf].success, tree.trajectory(leaf)[:-1]) for leaf in tree.leaves()]
        wins = sum(won for won, _ in paths)
        if self.rarer and 0 < wins < len(paths):
            rare = rng.random() < 0.5 if 2 * wins == len(paths) else 2 * wins < len(paths)
            paths = [(won, path) for won, path in paths if won == rare and path] or paths
        some = [path for _, path in paths if path]
        tagged = [[step for step in path if tree.nodes[step].mode == "explore"] for path in some] if self.tagged else []
        return [path for path in tagged if path] or some
