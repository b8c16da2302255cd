"""Numbers of a forest, against counts by hand."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import draw

from spark_rl.evaluation.statistics import clustered, pass_at, wilson
from spark_rl.rollout.metrics import coverage_gain, fork_depths, repeated, summarise
from spark_rl.types import Forest, Fork


def test_wilson_interval():
    """Values of the closed formula at z = 1.96."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(50, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert wilson(10, 10) == pytest.approx((0.72246, 1.0), abs=1e-5)
    assert wilson(0, 10) == pytest.approx((0.0, 0.27754), abs=1e-5)


def test_pass_at_k_equals_counting_the_subsets():
    for samples in range(1, 8):
        for wins in range(samples + 1):
            outcomes = [1] * wins + [0] * (samples - wins)
            for k in range(1, samples + 1):
                drawn = list(combinations(outcomes, k))
                assert pass_at(k, samples, wins) == pytest.approx(sum(map(max, drawn)) / len(drawn), abs=1e-12)


def test_pass_at_k_by_hand():
    assert pass_at(2, 4, 1) == 0.5  # 1 - C(3, 2) / C(4, 2)
    assert pass_at(16, 32, 1) == 0.5
    assert pass_at(16, 32, 0) == 0.0
    assert pass_at(16, 32, 17) == 1.0
    assert pass_at(1, 32, 8) == 0.25
    for k in (0, 33):
        with pytest.raises(ValueError, match="from 1 to 32"):
            pass_at(k, 32, 1)


def test_pass_at_k_is_unbiased():
    """Its mean over binomial counts is 1 - (1 - p)^k, by exact summation."""
    chance, samples, k = 0.3, 6, 4
    terms = [len(list(combinations(range(samples), wins))) * chance**wins * 0.7 ** (samples - wins) for wins in range(7)]
    mean = sum(term * pass_at(k, samples, wins) for wins, term in enumerate(terms))
    assert mean == pytest.approx(1 - 0.7**k, abs=1e-12)


def test_interval_of_samples_that_are_alike_by_hand():
    """Four tasks, two samples each, wins 2, 1, 0, 0: between 11/24, within 1/8, rho 4/7, design effect 11/7."""
    assert clustered([2, 1, 0, 0], 2) == pytest.approx(wilson(3 * 7 / 11, 8 * 7 / 11))
    # More alike than chance would be: no narrower than independent samples.
    assert clustered([1, 1, 1, 1], 2) == wilson(4, 8)


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n), min_size=1, max_size=20))))
def test_the_interval_lies_between_that_of_episodes_and_that_of_tasks(drawn):
    samples, wins = drawn
    low, high = clustered(wins, samples)
    total, tasks = sum(wins), len(wins)
    assert low - 1e-9 <= total / (tasks * samples) <= high + 1e-9
    narrow, wide = wilson(total, tasks * samples), wilson(total / samples, tasks)
    assert high - low >= narrow[1] - narrow[0] - 1e-9
    assert high - low <= wide[1] - wide[0] + 1e-9
    if samples == 1 or set(wins) <= {0, samples}:
        assert (low, high) == pytest.approx(wide)


def test_the_interval_covers_the_truth_where_a_naive_one_does_not():
    """200 evaluations of 40 tasks that are mostly either easy or hard, 8 samples each; the truth is 1/2."""
    rng = random.Random(0)
    covered = naive = 0
    for _ in range(200):
        wins = [sum(rng.random() < chance for _ in range(8)) for chance in (rng.betavariate(0.5, 0.5) for _ in range(40))]
        low, high = clustered(wins, 8)
        covered += low <= 0.5 <= high
        low, high = wilson(sum(wins), 320)
        naive += low <= 0.5 <= high
    assert covered >= 0.91 * 200
    assert naive <= 0.75 * 200


def test_a_repeated_action_was_taken_on_the_same_trajectory_at_the_same_state():
    tree = draw([-1, 0, 1, 0, -1])
    tree.nodes[1].action = "open"
    assert repeated(tree) == [False, False, True, True, False]
    tree.nodes[3].state_key = "elsewhere"
    assert repeated(tree) == [False, False, True, False, False]


def test_summary_of_a_small_forest():
    # Two roots; the first forks after its first step: leaves 2 (won), 3 and 4.
    mixed = draw([-1, -1, 0, 0, 1], {2: 1.0, 3: 0.0, 4: 0.0})
    mixed.forks.append(Fork(0, 0, "after", 1))
    mixed.nodes[0].mode = "explore"
    mixed.nodes[3].well_formed = False
    mixed.nodes[4].admissible = False
    lost = draw([-1], {0: 0.0})
    row = summarise(Forest([mixed, lost]))
    assert row["success"] == row["reward"] == 1 / 4
    assert row["leaves"] == 2
    assert row["steps"] == (2 + 2 + 2 + 1) / 4
    assert row["unique_steps"] == 6
    assert row["duplicated_over_unique"] == 7 / 6
    assert row["zero_signal_groups"] == 1 / 2
    assert (row["forks"], row["fork_depth"]) == (1, 1)
    assert row["explore_ratio"] == row["malformed_ratio"] == row["inadmissible_ratio"] == 1 / 6
    assert row["invalid_ratio"] == 2 / 6
    assert row["same_action_siblings"] == 1.0
    assert row["completion_tokens"] == 2


def test_new_roots_are_forks_at_depth_zero():
    tree = draw([-1, -1, -1])
    tree.forks.append(Fork(0, None, "decision", 2))
    assert fork_depths(Forest([tree])) == [0, 0]


def test_depths_of_forks_and_explore_mode_by_interval_of_five_steps():
    chain = draw([-1, 0, 1, 2, 3, 4, 5, -1])  # depths 1 to 7, and a second root
    chain.forks += [Fork(0, None, "decision", 1), Fork(0, 4, "after", 2), Fork(0, 5, "after", 1)]
    for index in (0, 6):
        chain.nodes[index].mode = "explore"
    row = summarise(Forest([chain]))
    depths = {name: value for name, value in row.items() if name.startswith("fork_depth_")}
    assert depths == {"fork_depth_0": 1 / 4, "fork_depth_1_5": 2 / 4, "fork_depth_6_10": 1 / 4}
    assert (row["explore_ratio_1_5"], row["explore_ratio_6_10"]) == (1 / 6, 1 / 2)
    assert row["fork_depth"] == (0 + 5 + 5 + 6) / 4
    assert all(isinstance(value, int | float) for value in row.values()), "rows are flat"


def test_the_share_of_the_budget_that_was_used():
    small, large = draw([-1, -1]), draw([-1, -1, -1, -1])
    row = summarise(Forest([small, large]), budget=4)
    assert (row["budget_used"], row["trees"]) == ((2 + 4) / 2 / 4, 2)
    assert "budget_used" not in summarise(Forest([small]))


def test_a_fork_gains_coverage_where_its_siblings_end_differently():
    """Below node 0 one of two won, below node 1 none: a fork at 0 tells something, one at 1 does not."""
    parents, rewards = [-1, -1, 0, 0, 1, 1], {2: 1.0, 3: 0.0, 4: 0.0, 5: 0.0}
    for fork, gain in (
        (Fork(0, 0, "after", 1), 1.0),
        (Fork(0, 1, "after", 1), 0.0),
        (Fork(0, 3, "decision", 1), 1.0),  # siblings of the step itself
        (Fork(0, 5, "decision", 1), 0.0),
        (Fork(0, 1, "decision", 1), 1.0),  # the roots: one half won, the other nothing
        (Fork(0, None, "decision", 1), 1.0),
    ):
        tree = draw(parents, rewards)
        tree.forks.append(fork)
        assert coverage_gain(Forest([tree])) == gain
    both = draw(parents, rewards)
    both.forks += [Fork(0, 0, "after", 1), Fork(0, 1, "after", 3)]
    assert coverage_gain(Forest([both])) == 1 / 4, "weighted by continuations granted"
    assert coverage_gain(Forest([draw(parents, rewards)])) == 0.0
