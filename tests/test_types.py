from dataclasses import replace

import pytest
from grown import ended, shapes
from hypothesis import given
from trees import TASK

from spark_rl.types import SPENT_COUNTERS, Forest, Observation, Request, Spent, Tree

#  0 ─ 1 ─┬ 2        three trajectories from two roots
#         └ 3 ─ 4
#  5
PARENTS = [-1, 0, 1, 1, 3, -1]


def test_views_of_a_hand_made_tree():
    tree = ended(PARENTS, rewards=[1.0, 0.0, 0.5])
    assert tree.leaves() == [2, 4, 5]
    assert tree.trajectory(4) == [0, 1, 3, 4]
    assert tree.trajectory(5) == [5]
    assert tree.leaves_below() == [2, 2, 1, 1, 1, 1]
    assert tree.children() == [[1], [2, 3], [], [4], [], [], [0, 5]]
    assert tree.returns() == [1.0, 0.0, 0.5]
    assert [node.depth for node in tree.nodes] == [1, 2, 3, 3, 4, 1]


def test_returns_sum_the_rewards_along_the_path():
    tree = ended(PARENTS)
    for node in tree.nodes:
        node.reward = 1.0
    assert tree.returns() == [3.0, 4.0, 1.0]


def test_an_empty_tree_has_no_trajectory():
    tree = Tree(TASK, "start")
    assert (tree.leaves(), tree.leaves_below(), tree.returns(), tree.children()) == ([], [], [], [[]])


@given(shapes())
def test_views_agree_with_each_other(shape):
    tree = ended(shape)
    leaves = tree.leaves()
    through = [0] * len(shape)
    for leaf in leaves:
        for node in tree.trajectory(leaf):
            through[node] += 1
    assert tree.leaves_below() == through
    below = tree.children()
    assert leaves == [node for node in range(len(shape)) if not below[node]]
    assert sorted(child for children in below for child in children) == list(range(len(shape)))
    assert len({node.path for node in tree.nodes}) == len(shape)
    assert all(len(tree.trajectory(index)) == node.depth for index, node in enumerate(tree.nodes))


def test_spent_adds_counters_and_seconds():
    total = Spent(generated=3, seconds={"generate": 1.0})
    total += Spent(generated=4, env_steps=2, seconds={"generate": 0.5, "update": 2.0})
    assert total == Spent(generated=7, env_steps=2, seconds={"generate": 1.5, "update": 2.0})
    assert tuple(total.counts()) == SPENT_COUNTERS


def test_forests_are_equal_whatever_the_clock_says():
    fast, slow = (Forest([ended(PARENTS)], spent=Spent(generated=9, seconds={"generate": s})) for s in (1.0, 2.0))
    assert fast == slow
    slow.spent.generated += 1
    assert fast != slow
    assert fast != Forest([ended(PARENTS[:-1])], spent=Spent(generated=9))


@pytest.mark.parametrize("listing", [("a", "b"), ["a", "b"], lambda: ["a", "b"]])
def test_actions_may_be_listed_lazily(listing):
    assert Observation("", listing).actions == ("a", "b")


def test_a_request_asks_for_one_sample_a_seed():
    assert Request(TASK, (), Observation(""), seeds=(4, 5, 6)).n == 3


def test_a_prompt_shows_the_short_form_where_the_list_is_too_long():
    listed = Observation("here", listing=lambda: ["a", "b"])
    assert listed.shown == listed.actions == ("a", "b")
    brief = replace(listed, brief=lambda: ["OBJ is one of: a, b", "take OBJ"])
    assert (brief.shown, brief.actions) == (("OBJ is one of: a, b", "take OBJ"), ("a", "b"))
    assert replace(listed, brief=("take OBJ",)).shown == ("take OBJ",)
