"""The `Branching` contract: when and where a tree forks.

One rollout loop serves every strategy because there are just two moments to ask at: after a step (the paper), and
when no leaf is open any more but budget is left (strategies that look at outcomes first). A strategy only *wishes*;
the rollout clips what it wishes to the budget, and refuses forks of finished trajectories and at the last step.
"""

from __future__ import annotations

import random
from typing import Protocol, runtime_checkable

from spark_rl.errors import UsageError
from spark_rl.types import Forest, Fork, Tree

__all__ = ["Branching", "check_width"]


@runtime_checkable
class Branching(Protocol):
    """A frozen value that decides where trees fork; each call gets a seeded random generator."""

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Asked once for each step that may still be continued; `index` is the tree's place in its forest."""
        ...

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Asked when no leaf is open; called again after its forks have run, until none of its wishes is granted.

        `forest.left` and each tree's `cap - opened` say how many leaves may still be opened; a tree whose environment
        failed is shown empty, with a cap of 0.
        """
        ...


def check_width(width: int) -> None:
    """Refuse a branching factor that is no fork.

    Raises:
        UsageError: it is below 2.
    """
    if width < 2:
        raise UsageError(f"branching.width is {width}: a fork needs at least 2 continuations")
