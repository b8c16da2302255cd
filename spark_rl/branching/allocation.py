"""Which task gets the leaves that are left, once the first outcomes are known: the same for every rule that waits for them.

Invariants
----------
* Neither the forest's pool nor a tree's cap is exceeded; a group that has only won gets nothing.
* The rules differ in where a leaf starts and in nothing else: from one forest and generator state, all allocate alike.

A forest is served in sweeps, one leaf a tree and sweep, the trees whose outcome is least certain first: by q (1 - q), where
q is the share of won trajectories, shrunk to a half by one observation, and at random among equals.
"""

from __future__ import annotations

import random

from spark_rl.types import Forest, Tree

__all__ = ["allocate", "outcomes", "uncertainty"]


def outcomes(tree: Tree) -> list[bool]:
    """Whether each trajectory was won, in the order of `Tree.leaves()`."""
    return [tree.nodes[leaf].success for leaf in tree.leaves()]


def uncertainty(won: list[bool]) -> float:
    """The variance q (1 - q) of an outcome, with the shrunk share of won trajectories: 0.25 at most."""
    # q = (wins + 1/2) / (n + 1), in whole numbers up to the division, so that 1 of 4 and 3 of 4 tie exactly.
    wins, losses = sum(won), len(won) - sum(won)
    return (2 * wins + 1) * (2 * losses + 1) / (2 * len(won) + 2) ** 2


def allocate(forest: Forest, rng: random.Random, *, one_by_one: bool) -> list[int]:
    """The trees that get one leaf more each, by index, in order; a tree may come several times.

    Args:
        forest: between two phases of growth: no leaf is open.
        rng: decides among equals, by a number of draws that depends on the number of trees to serve only.
        one_by_one: one sweep, to be asked again with its outcomes; else all sweeps from the first outcomes, and nothing in a
            forest that has had its forks.
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
