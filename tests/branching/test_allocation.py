"""Who gets the leaves that are left, by hand."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from grown import chains

from spark_rl.branching.allocation import allocate, outcomes, uncertainty
from spark_rl.types import Forest, Fork, Tree


def group(*won: int, cap: int = 8) -> Tree:
    """Trajectories of two steps with these outcomes."""
    tree = chains([2] * len(won), [float(outcome) for outcome in won])
    tree.cap = cap
    return tree


def given(*trees: Tree, left: int, one_by_one: bool = False, seed: int = 0) -> list[int]:
    return allocate(Forest(list(trees), left=left), random.Random(seed), one_by_one=one_by_one)


def test_outcomes_are_those_of_the_trajectories():
    assert outcomes(group(1, 0, 0)) == [True, False, False]


@pytest.mark.parametrize(("won", "q"), [((0, 0, 0, 0), 0.1), ((1, 0, 0, 0), 0.3), ((1, 1, 0, 0), 0.5), ((1, 1, 1, 0), 0.7)])
def test_uncertainty_is_shrunk_by_one_observation(won, q):
    assert uncertainty([bool(one) for one in won]) == pytest.approx(q * (1 - q))


def test_the_least_certain_are_served_first_and_solved_groups_never():
    trees = group(0, 0, 0, 0), group(1, 1, 1, 1), group(1, 1, 0, 0), group(1, 0, 0, 0)
    assert given(*trees, left=7) == [2, 3, 0, 2, 3, 0, 2]
    assert given(*trees, left=2) == [2, 3]
    assert given(*trees, left=0) == []


def test_caps_stop_a_tree_and_the_others_go_on():
    assert given(group(1, 0, cap=3), group(0, 0, cap=5), left=9) == [0, 1, 1, 1]


def test_one_by_one_is_a_sweep():
    assert given(group(1, 0), group(0, 0), left=9, one_by_one=True) == [0, 1]
    assert given(group(1, 0), group(0, 0), left=1, one_by_one=True) == [0]


def test_planned_at_once_means_once():
    forked = group(1, 0)
    forked.forks.append(Fork(0, 0, "decision", 1))
    assert given(forked, group(0, 0), left=9) == []
    assert given(forked, group(0, 0), left=9, one_by_one=True) == [0, 1]


def test_equals_are_drawn_by_lot():
    """One won of four is as certain as three of four, though 0.3 * 0.7 and 0.7 * 0.3 are not one float after 1 - 0.7."""
    first = Counter(given(group(1, 0, 0, 0), group(1, 1, 1, 0), left=1, seed=seed)[0] for seed in range(400))
    assert first[0] == pytest.approx(200, abs=40)  # four standard deviations


def test_a_tree_that_failed_gets_nothing():
    empty = Tree(group(0).task, "")
    assert given(empty, group(0, 0, cap=4), left=9) == [1, 1]
