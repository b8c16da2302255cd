"""No forks: independent trajectories (GRPO's rollout), the control for every other rule."""

from __future__ import annotations

import random
from dataclasses import dataclass

from spark_rl.types import Forest, Fork, Tree

__all__ = ["Chains"]


@dataclass(frozen=True)
class Chains:
    """Never fork. With `tree.roots` equal to `tree.budget` this is GRPO's N independent episodes."""

    @property
    def plans_only(self) -> bool:
        """True: this rule never forks while a tree grows."""
        return True

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Never."""
        return None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Never."""
        return []
