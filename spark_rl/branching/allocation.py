"""Chooses the tasks that get the remaining leaves after the first outcomes. All rules that wait for outcomes share it.

Invariants
----------
* Neither the forest's budget nor a tree's cap is exceeded. A group whose trajectories have all won gets nothing.
* The rules differ only in where a leaf starts: with the same forest and generator state, all rules choose the same tasks.

Leaves are given in sweeps, one leaf to each tree in a sweep. The trees with the least certain outcome come first, in the
order of q (1 - q), where q is the success rate, shrunk to a half by one observation. Equals come in random order.
"""

from __future__ import annotations

import random

from spark_rl.types import Forest, Tree

__all__ = ["allocate", "outcomes", "uncertainty"]


def outcomes(tree: Tree) -> list[bool]:
    """Whether each trajectory succeeded, in the order of `Tree.leaves()`."""
    return [tree.nodes[leaf].success for leaf in tree.leaves()]


def uncertainty(won: list[bool]) -> float:
    """The variance q (1 - q) of an outcome, with the shrunk success rate q: at most 0.25."""
    # q = (wins + 1/2) / (n + 1). All numbers before the division are whole, so that 1 of 4 and 3 of 4 tie exactly.
    wins, losses = sum(won), len(won) - sum(won)
    return (2 * wins + 1) * (2 * losses + 1) / (2 * len(won) + 2) ** 2


def allocate(forest: Forest, rng: random.Random, *, one_by_one: bool) -> list[int]:
    """Indices of the trees that get one more leaf each, in order; an index may occur several times.

    Args:
        forest: a forest between two phases of growth, without open leaves.
        rng: decides among equals; the number of draws depends on the number of eligible trees only.
        one_by_one: True gives one sweep, and the caller asks again after the outcomes of this sweep. False gives all sweeps
            at once, from the first outcomes, and nothing for a forest that already has forks.
    """
    if not one_by_one and any(tree.forks for tree in forest):
        return []
    won = {index: outcomes(tree) for index, tree in enumerate(forest)}
    room = {index: forest.trees[index].cap - forest.trees[index].opened for index in won if not all(won[index])}
    order = list(room)
    rng.shuffle(order)
    order.sort(key=lambda index: uncertainty(won[index]), reverse=True)
    given: list[int] = []
    while sweep := [index for index in order if room[index] > 0][: forest.left - len(given)]:
        given += sweep
        if one_by_one:
            break
        for index in sweep:
            room[index] -= 1
    return given
