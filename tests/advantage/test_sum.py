from dataclasses import dataclass, replace

import pytest
from grown import chains, ended, shapes, unshared
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.advantage.anchors import Anchors
from spark_rl.advantage.credit import per_node, spread
from spark_rl.advantage.discounted import Discounted
from spark_rl.advantage.group import GroupMean
from spark_rl.advantage.leave_one_out import LeaveOneOut
from spark_rl.advantage.node_value import NodeValue
from spark_rl.advantage.rows import Rows
from spark_rl.advantage.siblings import Siblings
from spark_rl.advantage.sum import Sum
from spark_rl.advantage.tags import Tags
from spark_rl.config.codec import decode, encode
from spark_rl.config.components import COMPONENTS, component
from spark_rl.errors import UsageError

ALL = (GroupMean(), Rows(), LeaveOneOut(), Discounted(), NodeValue(), Siblings(), Anchors(), Tags())
STRATEGIC = Sum((NodeValue(), Anchors(gamma=0.9, beta=0.5, sweeps=3)))


@dataclass(frozen=True)
class Leaves:
    """Each trajectory the advantage given."""

    advantages: tuple[float, ...]

    def __call__(self, tree):
        return spread(tree, self.advantages)


@dataclass(frozen=True)
class Nodes:
    """Each node the advantage given."""

    advantages: tuple[float, ...]

    def __call__(self, tree):
        return per_node(self.advantages)


@st.composite
def trees(draw):
    shape = draw(shapes())
    leaves = len(ended(shape).leaves())
    tree = ended(shape, draw(st.lists(st.sampled_from([0.0, 10.0]), min_size=leaves, max_size=leaves)))
    tree.nodes = [replace(node, state_key=draw(st.sampled_from("ab"))) for node in tree.nodes]
    return tree


def advantages(credit):
    return [up + down for up, down in zip(credit.positive, credit.negative, strict=True)]


@given(trees())
@pytest.mark.parametrize("part", ALL, ids=lambda part: type(part).__name__)
def test_one_part_alone_is_the_part(part, tree):
    assert Sum((part,))(tree) == part(tree)


@given(trees())
@pytest.mark.parametrize("part", [*ALL, STRATEGIC], ids=lambda part: type(part).__name__)
def test_failures_alone_carry_no_signal(part, tree):
    tree.nodes = [replace(node, reward=0.0, success=False) for node in tree.nodes]
    if not isinstance(part, Tags):  # what it rewards in a failed group is novelty
        assert advantages(part(tree)) == [0.0] * len(tree.nodes)


@given(trees())
@pytest.mark.parametrize("part", [*ALL, STRATEGIC], ids=lambda part: type(part).__name__)
def test_signs_and_weights_are_what_they_must_be(part, tree):
    credit = part(tree)
    assert min(credit.positive) >= 0 >= max(credit.negative)
    per_trajectory = isinstance(part, GroupMean | Rows | LeaveOneOut | Discounted | Tags)
    assert credit.weight == (tuple(tree.leaves_below()) if per_trajectory else (1,) * len(tree.nodes))


def test_gigpo_by_hand():
    """gamma 1, no std: 5 or -5 a trajectory, and in the state that both meet (second steps) again 5 and -5, twice."""
    tree = chains([2, 2], [10, 0])
    for index, key in enumerate("abcb"):
        tree.nodes[index] = replace(tree.nodes[index], state_key=key)
    gigpo = Sum((GroupMean(std=False), Anchors(gamma=1, weight=2, std=False)))
    assert advantages(gigpo(tree)) == [5, 15, -5, -15]


def test_a_step_that_is_one_row_has_one_advantage():
    """+1 and -3 are -2: not 1 up and 3 down, which the clip would treat apart."""
    credit = Sum((Nodes((1.0,)), Nodes((-3.0,))))(ended([-1]))
    assert (credit.positive, credit.negative, credit.weight) == ((0,), (-2,), (1,))


def test_a_node_s_credit_goes_to_each_trajectory_that_shares_it():
    """Leaves +5 and -5 share step 0, which is worth 1 by itself: rows of 6 and -4, that is 2 more than nothing."""
    credit = Sum((Leaves((5.0, -5.0)), Nodes((1.0, 0.0, 0.0))))(ended([-1, 0, 0]))
    assert (credit.positive, credit.negative, credit.weight) == ((7, 5, 0), (-5, 0, -5), (2, 1, 1))


@given(trees(), st.data())
def test_it_equals_rows_that_each_have_the_sum(tree, data):
    numbers = st.integers(-9, 9).map(float)
    leaf = data.draw(st.lists(numbers, min_size=len(tree.leaves()), max_size=len(tree.leaves())))
    own = data.draw(st.lists(numbers, min_size=len(tree.nodes), max_size=len(tree.nodes)))
    credit = Sum((Leaves(tuple(leaf)), Nodes(tuple(own))))(tree)
    rows = [0.0] * len(tree.nodes)
    for end, advantage in zip(tree.leaves(), leaf, strict=True):
        for node in tree.trajectory(end):
            rows[node] += advantage + own[node]
    assert advantages(credit) == pytest.approx(rows)
    assert sum(credit.weight) == len(unshared(tree).nodes)


@given(trees())
def test_weights_scale_and_the_order_does_not_matter(tree):
    ahead = Sum((GroupMean(), Anchors()), (1.0, 2.0))(tree)
    back = Sum((Anchors(weight=2.0), GroupMean()))(tree)
    assert advantages(ahead) == pytest.approx(advantages(back))
    assert ahead.weight == back.weight


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError, match="2 numbers for 1 part"):
        Sum((GroupMean(),), (1.0, 2.0))
    with pytest.raises(UsageError, match="at least 0"):
        Sum((GroupMean(),), (-1.0,))
    with pytest.raises(UsageError, match="parts is empty"):
        Sum()(ended([-1]))


def test_a_recipe_s_sum_is_read_back_equal():
    assert decode(encode(STRATEGIC)) == STRATEGIC


@pytest.mark.parametrize("name", COMPONENTS["advantage"])
def test_every_estimator_has_a_name(name):
    assert decode(encode(component("advantage", name))) == component("advantage", name)
