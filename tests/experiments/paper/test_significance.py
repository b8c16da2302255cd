"""Wilcoxon's signed-rank test on samples small enough to count by hand."""

from __future__ import annotations

import pytest

from spark_rl.experiments.paper.significance import signed_rank


def test_all_of_one_sign_leaves_two_assignments_of_the_signs():
    assert signed_rank([1, 2, 3, 4, 5, 6]) == (2 / 64, 6)
    assert signed_rank([-value for value in (1, 2, 3, 4, 5, 6)]) == (2 / 64, 6)


def test_eleven_differences_of_one_sign_give_the_papers_p():
    p, n = signed_rank([36.1, 11.9, 17.4, 20.3, 22.7, 50.8, 48.4, 54.3, 38.3, 13.0, 19.0])  # SPARK minus GRPO, 1.5B
    assert n == 11
    assert p == pytest.approx(9.77e-4, abs=1e-6)


def test_the_rank_sum_of_the_rarer_sign_is_what_counts():
    # Ranks 1, 2, 3; the negative one has rank 2. Sums up to 2 are made by {}, {1}, {2}: three of eight, on both sides.
    assert signed_rank([0.1, -0.2, 0.3]) == (0.75, 3)
    # Negative rank 1: {} and {1}.
    assert signed_rank([-0.1, 0.2, 0.3]) == (0.5, 3)


def test_equal_differences_share_their_rank_and_zeros_are_left_out():
    # Ranks 1.5, 1.5, 3; the negative one has 1.5. Sums up to 1.5: {}, and either of the two.
    assert signed_rank([1.0, -1.0, 2.0, 0.0]) == (0.75, 3)
    assert signed_rank([0.3 - 0.2, -(0.2 - 0.1), 2.0]) == (0.75, 3), "equal up to rounding"
    assert signed_rank([0.0, 0.0]) == (1.0, 0)
    assert signed_rank([]) == (1.0, 0)
