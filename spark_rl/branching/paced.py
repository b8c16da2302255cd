"""Paces the budget of any rule. First come, first served would spend it at depth 1, where a fork is almost a new root."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.contracts import Branching
from spark_rl.errors import at_least
from spark_rl.types import Forest, Fork, Tree

__all__ = ["Paced"]


@dataclass(frozen=True)
class Paced:
    """Ask another rule after each step, and drop forks that come too early, too densely or too often below one root."""

    rule: Branching = ExploreTag()
    """The rule that wishes for forks. Its wishes in `when_idle` pass unchanged."""
    gap: int = 0
    """Fewest steps between two forks of a path. With 1, a step that a fork at `decision` has sampled again is not forked."""
    skip: int = 0
    """Number of first steps that never fork."""
    spread: bool = False
    """Release a tree's extra leaves evenly over the horizon: up to depth d of K a share of d / K, rounded up."""
    per_root: int = 0
    """Most extra leaves below one root; 0 sets no limit. A first step that is sampled again counts for the original root."""

    def __post_init__(self) -> None:
        at_least("branching", self, gap=0, skip=0, per_root=0)

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """The rule's wish, clipped to the leaves released so far, or None."""
        fork = self.rule.after_step(tree, index, node, rng)
        if fork is None or fork.node is None:
            return fork
        if tree.nodes[fork.node].depth <= self.skip or self._crowded(tree, fork.node):
            return None
        extra = min(fork.extra, self._released(tree, fork.node))
        return replace(fork, extra=extra) if extra > 0 else None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """The rule's own wishes."""
        return self.rule.when_idle(forest, rng)

    def _crowded(self, tree: Tree, node: int) -> bool:
        """Whether the path to a node has forked less than `gap` steps above the node.

        A fork at a step that is sampled again counts for the paths of all its siblings.
        """
        here = tree.nodes[node]
        for fork in tree.forks:
            if fork.node is None:
                continue
            there = tree.nodes[fork.node]
            shared = there.path if fork.at == "after" else there.path[:-1]
            if here.path[: len(shared)] == shared and 0 <= here.depth - there.depth < self.gap:
                return True
        return False

    def _released(self, tree: Tree, node: int) -> int:
        """The number of extra leaves that a step may open."""
        here, out = tree.nodes[node], sum(fork.extra for fork in tree.forks)
        extra = tree.cap - (tree.opened - out)
        free = tree.cap - tree.opened
        if self.spread:
            free = min(free, -(-extra * here.depth // tree.horizon) - out)
        if self.per_root:
            below = sum(
                fork.extra for fork in tree.forks if fork.node is not None and tree.nodes[fork.node].path[0] == here.path[0]
            )
            free = min(free, self.per_root - below)
        return free
