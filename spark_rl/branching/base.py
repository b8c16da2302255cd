"""The `Branching` contract: when and where a tree forks.

One rollout loop serves every strategy because there are just two moments to ask at: after a step (the paper), and
when no leaf is open any more but budget is left (strategies that look at outcomes first). A strategy only *wishes*;
the rollout clips what it wishes to the budget, and refuses forks of finished trajectories and at the last step.
"""

from __future__ import annotations

import random
from typing import Protocol, runtime_checkable

from spark_rl.types import Forest, Fork, Tree

__all__ = ["Branching"]


@runtime_checkable
class Branching(Protocol):
    """A frozen value that decides where trees fork; each call gets a seeded random generator."""

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Asked once for each step that may still be continued; `index` is the tree's place in its forest."""
        ...

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Asked when no leaf is open; called again after its forks have run, until it returns an empty list."""
        ...
