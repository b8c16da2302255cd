"""A tree between two phases of growth, as it goes from process to process.

Invariant: a tree that grows on from its record, in whichever process, becomes the same tree. The record holds all that later
steps depend on. States of the environment are not in it: replay reaches them again (`states`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spark_rl.rollout.steps import Name
from spark_rl.types import Fork, Task, Tree, TreeShape

__all__ = ["Grown", "Known", "Planned", "may_fork", "seedlings"]

Planned = dict[int, list[tuple[int, Fork]]]
"""Granted forks by tree, each with its place in the plan; trees in the order in which the plan names them."""


class Known(Protocol):
    """What every process knows of a tree."""

    @property
    def index(self) -> int:
        """Its place in the forest."""
        ...

    @property
    def tree(self) -> Tree:
        """Its record so far."""
        ...

    @property
    def rounds(self) -> int:
        """Finished rounds."""
        ...

    @property
    def failed(self) -> str:
        """Why it was dropped; empty for a tree that was not."""
        ...


@dataclass(frozen=True)
class Grown:
    """A tree that has no open continuation, or has not begun."""

    index: int
    name: Name
    """What the seeds of the tree are derived from."""
    tree: Tree
    rounds: int = 0
    failed: str = ""
    draws: Any = None
    """State of the generator of its rule (`random.Random.getstate`); None before the first round."""


def seedlings(tasks: Sequence[Task], seed: int, iteration: int, shape: TreeShape) -> list[Grown]:
    """A tree for each task, before its first step; the same task twice has two names."""
    seen: Counter[str] = Counter()
    trees: list[Grown] = []
    for index, task in enumerate(tasks):
        tree = Tree(task, "", cap=shape.cap or shape.budget, horizon=shape.horizon)
        trees.append(Grown(index, (seed, iteration, task.id, seen[task.id]), tree))
        seen[task.id] += 1
    return trees


def may_fork(tree: Tree, node: int) -> bool:
    """Whether a step may be continued: it has not ended its episode, and is above the horizon."""
    return not tree.nodes[node].done and tree.nodes[node].depth < tree.horizon
