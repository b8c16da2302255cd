import pytest
from grown import chains, ended, shapes, unshared
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.advantage.credit import spread
from spark_rl.advantage.group import GroupMean


def advantages(credit):
    return [up + down for up, down in zip(credit.positive, credit.negative, strict=True)]


def test_two_of_four_won():
    credit = GroupMean()(chains([1] * 4, [10, 10, 0, 0]))
    assert advantages(credit) == pytest.approx([0.8660, 0.8660, -0.8660, -0.8660], abs=5e-5)
    assert credit.weight == (1, 1, 1, 1)


def test_without_the_standard_deviation():
    assert advantages(GroupMean(std=False)(chains([1] * 4, [10, 10, 0, 0]))) == [5, 5, -5, -5]


@pytest.mark.parametrize("rewards", [[10, 10, 10], [0, 0, 0], [10], [0]])
@pytest.mark.parametrize("std", [True, False])
def test_equal_returns_and_a_single_trajectory_carry_no_signal(rewards, std):
    credit = GroupMean(std=std)(chains([2] * len(rewards), rewards))
    assert advantages(credit) == [0.0] * 2 * len(rewards)


def test_a_long_failure_weighs_as_much_as_a_short_success():
    """4 wins of 10 steps, 4 failures of 30: statistics over trajectories give +-0.9354, over steps +1.7266 and -0.5755."""
    credit = GroupMean()(chains([10] * 4 + [30] * 4, [10] * 4 + [0] * 4))
    assert advantages(credit)[:40] == pytest.approx([0.9354] * 40, abs=5e-5)
    assert advantages(credit)[40:] == pytest.approx([-0.9354] * 120, abs=5e-5)


def test_by_length_a_long_failure_pushes_no_harder_than_a_short_success():
    """A win of 2 steps, a failure of 6: +-0.7071 times 4/2 and 4/6, so that both add up to 2.8284 over their steps."""
    credit = GroupMean(by_length=True)(chains([2, 6], [10, 0]))
    assert advantages(credit) == pytest.approx([1.4142] * 2 + [-0.4714] * 6, abs=5e-5)


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 10.0])), min_size=2, max_size=6))
def test_by_length_the_steps_of_a_group_balance(leaves):
    credit = GroupMean(by_length=True)(chains([length for length, _ in leaves], [reward for _, reward in leaves]))
    assert sum(advantages(credit)) == pytest.approx(0.0, abs=1e-9)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 10.0])), min_size=2, max_size=6))
def test_making_a_trajectory_longer_changes_no_advantage(leaves):
    rewards = [reward for *_, reward in leaves]
    tree = chains([length for length, *_ in leaves], rewards)
    longer = chains([length + more for length, more, _ in leaves], rewards)
    before, after = advantages(GroupMean()(tree)), advantages(GroupMean()(longer))
    assert [before[leaf] for leaf in tree.leaves()] == [after[leaf] for leaf in longer.leaves()]


def test_a_shared_step_keeps_the_two_signs_apart():
    #  0 ─┬ 1 wins, 2 loses
    #  3 loses, 4 wins
    credit = GroupMean(std=False)(ended([-1, 0, 0, -1, -1], [10, 0, 0, 10]))
    assert credit.positive == (5, 5, 0, 0, 5)
    assert credit.negative == (-5, 0, -5, -5, 0)
    assert credit.weight == (2, 1, 1, 1, 1)


@given(shapes(), st.data())
def test_credit_of_a_step_is_the_sum_over_its_trajectories(shape, data):
    tree = ended(shape)
    given_to = data.draw(st.lists(st.integers(-9, 9), min_size=len(tree.leaves()), max_size=len(tree.leaves())))
    credit = spread(tree, given_to)
    through = [
        [a for leaf, a in zip(tree.leaves(), given_to, strict=True) if n in tree.trajectory(leaf)] for n in range(len(shape))
    ]
    assert credit.positive == tuple(sum(a for a in some if a > 0) for some in through)
    assert credit.negative == tuple(sum(a for a in some if a < 0) for some in through)
    assert credit.weight == tuple(tree.leaves_below())


@given(shapes(), st.data())
def test_sharing_steps_changes_no_trajectory_s_advantage(shape, data):
    leaves = len(ended(shape).leaves())
    tree = ended(shape, data.draw(st.lists(st.sampled_from([0.0, 10.0]), min_size=leaves, max_size=leaves)))
    apart = unshared(tree)
    shared, copied = advantages(GroupMean()(tree)), advantages(GroupMean()(apart))
    assert [shared[leaf] for leaf in tree.leaves()] == [copied[leaf] for leaf in apart.leaves()]
