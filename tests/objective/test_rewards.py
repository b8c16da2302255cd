from dataclasses import replace

import pytest
from grown import chains, ended

from spark_rl.advantage.group import GroupMean
from spark_rl.objective.rewards import Rewards


def spoil(tree, *indices, **flags):
    for index in indices:
        tree.nodes[index] = replace(tree.nodes[index], **flags)
    return tree


def test_a_failed_group_learns_its_form_and_nothing_else():
    """240 failing steps, 4 malformed: no task advantage anywhere, and exactly the penalty on the four."""
    tree = spoil(chains([30] * 8, [0] * 8), 3, 40, 41, 239, well_formed=False)
    credit = Rewards().credit(tree, GroupMean())
    assert credit.positive == (0.0,) * 240
    assert credit.negative == tuple(-0.1 if index in (3, 40, 41, 239) else 0.0 for index in range(240))


def test_inside_the_normalisation_a_failed_group_is_all_about_form():
    tree = spoil(chains([1] * 240, [0] * 240), 0, 1, 2, 3, well_formed=False)
    credit = Rewards(inside=True).credit(tree, GroupMean())
    assert credit.negative[:4] == pytest.approx([-7.66] * 4, abs=5e-3)
    assert credit.positive[4:] == pytest.approx([0.13] * 236, abs=5e-3)


def test_a_shared_step_pays_once_for_each_trajectory_through_it():
    tree = spoil(ended([-1, 0, 0, 0]), 0, well_formed=False)
    assert Rewards().credit(tree, GroupMean()).negative == pytest.approx((-0.3, 0, 0, 0))


def test_form_is_judged_before_admissibility():
    rewards = Rewards(malformed=0.3, inadmissible=0.2)
    tree = spoil(ended([-1, -1, -1, -1]), 0, well_formed=False, admissible=False)
    spoil(tree, 1, well_formed=False)
    spoil(tree, 2, admissible=False)
    assert [rewards.penalty(node) for node in tree.nodes] == [0.3, 0.3, 0.2, 0.0]


def test_shape_scales_rewards_and_leaves_the_tree_alone():
    tree = spoil(chains([2, 1], [1.0, 0.5]), 0, admissible=False)
    assert Rewards().shape(tree).returns() == [10.0, 5.0]
    assert Rewards(scale=1, inside=True).shape(tree).returns() == pytest.approx([0.9, 0.5])
    assert tree.returns() == [1.0, 0.5]
