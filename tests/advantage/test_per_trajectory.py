"""Estimators that give each trajectory one advantage: leave-one-out and the discounted return."""

import pytest
from grown import chains, ended, shapes
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.advantage.discounted import Discounted
from spark_rl.advantage.group import GroupMean
from spark_rl.advantage.leave_one_out import LeaveOneOut


def advantages(credit):
    return [up + down for up, down in zip(credit.positive, credit.negative, strict=True)]


def test_leave_one_out_compares_with_the_others():
    """10 against (0 + 0 + 10) / 3, 0 against (10 + 10 + 0) / 3."""
    credit = LeaveOneOut()(chains([1] * 4, [10, 10, 0, 0]))
    assert advantages(credit) == pytest.approx([6.6667, 6.6667, -6.6667, -6.6667], abs=5e-5)
    assert advantages(LeaveOneOut()(chains([2], [10]))) == [0, 0]


def test_leave_one_out_on_a_shared_step_keeps_the_signs_apart():
    credit = LeaveOneOut()(ended([-1, 0, 0], [10, 0]))
    assert (credit.positive, credit.negative, credit.weight) == ((10, 10, 0), (-10, 0, -10), (2, 1, 1))


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=8))
def test_leave_one_out_is_exactly_that(returns):
    each = advantages(LeaveOneOut()(chains([1] * len(returns), returns)))
    others = [(sum(returns) - own) / (len(returns) - 1) for own in returns]
    assert each == pytest.approx([own - other for own, other in zip(returns, others, strict=True)])


def test_of_two_wins_the_shorter_is_worth_more():
    """gamma 0.5: 10 / 2, 10 / 8 and 0: mean 2.0833."""
    credit = Discounted(gamma=0.5, std=False)(chains([1, 3, 1], [10, 10, 0]))
    assert advantages(credit) == pytest.approx([2.9167, *[-0.8333] * 3, -2.0833], abs=5e-5)


def test_discounted_by_the_standard_deviation():
    """Worth 5, 1.25 and 0: std 2.6021."""
    credit = Discounted(gamma=0.5)(chains([1, 3, 1], [10, 10, 0]))
    assert advantages(credit) == pytest.approx([1.1209, *[-0.3203] * 3, -0.8006], abs=5e-5)


def test_wins_alone_still_teach_to_be_quick_and_failures_nothing():
    assert advantages(Discounted()(chains([1, 2], [10, 10])))[0] > 0
    assert advantages(Discounted()(chains([1, 2], [0, 0]))) == [0, 0, 0]


@given(shapes(), st.data())
def test_without_discount_it_is_the_group_mean(shape, data):
    leaves = len(ended(shape).leaves())
    tree = ended(shape, data.draw(st.lists(st.sampled_from([0.0, 10.0]), min_size=leaves, max_size=leaves)))
    assert Discounted(gamma=1)(tree) == GroupMean()(tree)
