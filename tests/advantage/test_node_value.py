import pytest
from grown import chains, ended, shapes
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.advantage.group import GroupMean
from spark_rl.advantage.node_value import NodeValue, node_values
from spark_rl.advantage.siblings import Siblings

# 0 ─┬─ 1 wins
#    └─ 2 ─┬─ 3 wins
#          └─ 4 fails
# 5 ─── 6 fails
SHAPE, OUTCOMES = [-1, 0, 0, 2, 2, -1, 5], [10, 10, 0, 0]


def advantages(credit):
    return [up + down for up, down in zip(credit.positive, credit.negative, strict=True)]


def test_a_value_is_the_mean_of_the_children_s():
    assert node_values(ended(SHAPE, OUTCOMES)) == [7.5, 10, 5, 10, 0, 0, 0]


def test_steps_are_compared_with_the_root():
    """V0 = (7.5 + 0) / 2 = 3.75, though two of four leaves won; std of the leaves 5.7735."""
    plain = NodeValue(std=False)(ended(SHAPE, OUTCOMES))
    assert advantages(plain) == [3.75, 6.25, 1.25, 6.25, -3.75, -3.75, -3.75]
    assert plain.weight == (1.0,) * 7
    scaled = NodeValue()(ended(SHAPE, OUTCOMES))
    assert advantages(scaled) == pytest.approx([0.6495, 1.0825, 0.2165, 1.0825, -0.6495, -0.6495, -0.6495], abs=5e-5)


def test_where_forks_are_says_nothing_of_a_value():
    """Forking a failing leaf again and again leaves the value of what is above it alone."""
    once = node_values(ended([-1, 0, 0, 1], [10, 0]))
    often = node_values(ended([-1, 0, 0, 1, 1, 1], [10, 0, 0, 0]))
    assert once[0] == often[0] == 5


def test_rewards_on_the_way_count_in_the_whole_return():
    tree = ended([-1, 0, 0], [1, 0])
    tree.nodes[0].reward = 2.0
    assert node_values(tree) == [2.5, 3, 2]


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0.0, 10.0])), min_size=1, max_size=6), st.booleans())
def test_on_chains_it_is_the_group_mean(leaves, std):
    tree = chains([length for length, _ in leaves], [reward for _, reward in leaves])
    assert advantages(NodeValue(std=std)(tree)) == pytest.approx(advantages(GroupMean(std=std)(tree)))


@given(shapes(), st.floats(-20, 20))
@pytest.mark.parametrize("estimator", [NodeValue(), NodeValue(std=False), Siblings(), Siblings(std=False)])
def test_equal_returns_carry_no_signal(estimator, shape, reward):
    leaves = len(ended(shape).leaves())
    assert advantages(estimator(ended(shape, [reward] * leaves))) == [0.0] * len(shape)


def test_siblings_are_compared_with_one_another():
    """First steps 7.5 and 0; below step 0 10 and 5; below step 2 10 and 0; step 6 is alone."""
    credit = Siblings(std=False)(ended(SHAPE, OUTCOMES))
    assert advantages(credit) == [3.75, 2.5, -2.5, 5, -5, -3.75, 0]
    assert credit.weight == (1.0,) * 7
    assert advantages(Siblings()(ended(SHAPE, OUTCOMES)))[3] == pytest.approx(0.8660, abs=5e-5)


@given(shapes(), st.data())
def test_sibling_credit_of_a_family_adds_up_to_nothing(shape, data):
    leaves = len(ended(shape).leaves())
    tree = ended(shape, data.draw(st.lists(st.sampled_from([0.0, 10.0]), min_size=leaves, max_size=leaves)))
    credit = advantages(Siblings()(tree))
    assert all(sum(credit[child] for child in family) == pytest.approx(0, abs=1e-9) for family in tree.children())
