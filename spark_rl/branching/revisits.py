"""Forks after the outcomes: goes back to a step of a finished trajectory and samples the step again.

In a state of value V, a second trajectory gives one unit of gradient with probability V if the first one failed, and with
probability 1 - V if the first one succeeded. So revisiting trajectories with the rarer outcome gives the most gradient (see
the simulation behind `docs/algorithms.md`).
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
    """Spend the remaining leaves on sampling earlier steps again.

    `allocate` chooses the task, the outcomes choose the trajectory, and chance chooses the step. This needs `tree.roots`
    below `tree.budget`; `tree.cap` (say twice the budget) lets leaves move between tasks. A trajectory's last step is never
    forked. A tree whose trajectories all have one step only gets a new root instead.
    """

    one_by_one: bool = False
    """Plan one sweep at a time, with the outcomes of earlier sweeps; else all forks run in one phase, which is faster."""
    rarer: bool = True
    """Revisit trajectories with the rarer outcome only; a coin decides where both are equally frequent."""
    steps: Literal["uniform", "entropy"] = "uniform"
    """Probability of a trajectory's steps: `uniform`, or by `entropy` (mean over the step's tokens) times depth."""
    tagged: bool = False
    """Revisit steps in explore mode only, in trees that have such steps."""
    exclude: bool = False
    """Exclude actions that were already taken in the same state; `resampling` explains the effect on the distribution."""

    @property
    def plans_only(self) -> bool:
        """True: this rule never forks while a tree grows."""
        return True

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Never: this rule waits for outcomes."""
        return None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """One fork for each remaining leaf."""
        return [self.fork(forest.trees[index], index, rng) for index in allocate(forest, rng, one_by_one=self.one_by_one)]

    def fork(self, tree: Tree, index: int, rng: random.Random) -> Fork:
        """A fork that adds one leaf to a tree.

        Raises:
            UsageError: `steps` is entropy, and the policy gave no entropies.
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
        """The steps that may be sampled again, one list for each trajectory with the chosen outcome."""
        # A trajectory's last step is finished or at the horizon, so it must not fork.
        paths = [(tree.nodes[leaf].success, tree.trajectory(leaf)[:-1]) for leaf in tree.leaves()]
        wins = sum(won for won, _ in paths)
        if self.rarer and 0 < wins < len(paths):
            rare = rng.random() < 0.5 if 2 * wins == len(paths) else 2 * wins < len(paths)
            paths = [(won, path) for won, path in paths if won == rare and path] or paths
        some = [path for _, path in paths if path]
        tagged = [[step for step in path if tree.nodes[step].mode == "explore"] for path in some] if self.tagged else []
        return [path for path in tagged if path] or some
