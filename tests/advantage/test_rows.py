from dataclasses import replace

import pytest
from grown import chains, ended, shapes, unshared
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.advantage.group import GroupMean
from spark_rl.advantage.rows import Rows
from spark_rl.objective.rewards import Rewards


def advantages(credit):
    return [up + down for up, down in zip(credit.positive, credit.negative, strict=True)]


def test_long_failures_dominate():
    """4 wins of 10 steps, 4 failures of 30: mean 2.5, std 4.3437 over the 160 rows."""
    credit = Rows()(chains([10] * 4 + [30] * 4, [10] * 4 + [0] * 4))
    assert advantages(credit) == pytest.approx([1.7266] * 40 + [-0.5755] * 120, abs=5e-5)


def test_a_failed_group_is_all_about_form():
    """240 rows, 4 of them malformed: mean -0.0016667, std 0.0128285, and failing steps are rewarded."""
    tree = chains([30] * 8, [0] * 8)
    for index in (3, 40, 41, 239):
        tree.nodes[index] = replace(tree.nodes[index], well_formed=False)
    credit = Rewards(malformed=0, inadmissible=0).credit(tree, Rows())
    for index, value in enumerate(advantages(credit)):
        assert value == pytest.approx(-7.66 if index in (3, 40, 41, 239) else 0.13, abs=5e-3)


def test_shared_steps_enter_the_statistics_once_a_trajectory():
    """One step, then a win and a failure of a step each: rows 10, 10, 0, 0, mean 5, std 5.7735."""
    credit = Rows()(ended([-1, 0, 0], [10, 0]))
    assert credit.positive == pytest.approx((0.8660, 0.8660, 0), abs=5e-5)
    assert credit.negative == pytest.approx((-0.8660, 0, -0.8660), abs=5e-5)
    assert credit.weight == (2, 1, 1)


@given(st.lists(st.sampled_from([0.0, 10.0]), min_size=1, max_size=6), st.integers(1, 5))
def test_with_equal_lengths_means_agree_and_signs_too(rewards, length):
    tree = chains([length] * len(rewards), rewards)
    rows, group = advantages(Rows()(tree)), advantages(GroupMean()(tree))
    assert [(a > 0) - (a < 0) for a in rows] == [(a > 0) - (a < 0) for a in group]


@given(shapes(), st.data())
def test_sharing_steps_changes_nothing(shape, data):
    leaves = len(ended(shape).leaves())
    tree = ended(shape, data.draw(st.lists(st.sampled_from([0.0, 10.0]), min_size=leaves, max_size=leaves)))
    apart = unshared(tree)
    assert sum(advantages(Rows()(tree))) == pytest.approx(sum(advantages(Rows()(apart))), abs=1e-9)
    shared, copied = advantages(Rows()(tree)), advantages(Rows()(apart))
    assert [shared[leaf] for leaf in tree.leaves()] == pytest.approx([copied[leaf] for leaf in apart.leaves()])
