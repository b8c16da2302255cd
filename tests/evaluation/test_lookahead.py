"""Choosing one trajectory of a tree: elections by hand, blindness to outcomes, and the trajectory without branching."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import RECIPE, WORLD, finished
from trees import draw

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.branching.new_roots import NewRoots
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.evaluation.lookahead import Ahead, ahead, alone, along, likelihood, majority
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.policies.scripted import RandomActions
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.rollout.grow import grow_forest
from spark_rl.rollout.playing import chains
from spark_rl.types import Forest, Tree, TreeShape

GROWTH = replace(RECIPE.growth, shape=TreeShape(budget=8, roots=3, horizon=12, cap=16), branching=ExploreTag())


def acting(parents: list[int], actions: str) -> Tree:
    tree = draw(parents)
    for node, action in zip(tree.nodes, actions, strict=True):
        node.action = action
    return tree


def test_leaves_vote_step_by_step():
    """Roots a, a, b: two votes of three. Below them d is taken twice, c once."""
    assert majority(acting([-1, -1, -1, 0, 0, 1, 2], "aabcddd")) == 4
    assert majority(acting([-1, -1, -1, 2, 2], "abbcd")) == 1, "b has two votes: one for ending, halves for c and d"


def test_a_fork_divides_its_vote():
    """The first of three roots has three leaves of five, and one vote of three."""
    assert majority(acting([-1, -1, -1, 0, 0, 0, 1, 2], "abbcddee")) == 6
    # a forks into x, y, y; one y forks again, so that its z and w have a sixth each beside the third of the y that ended.
    assert majority(acting([-1, 0, 0, 0, 2, 2], "axyyzw")) == 3
    # Three thirds are one vote, exactly: a tie.
    assert majority(acting([-1, -1, 0, 0, 0], "abccc")) == 2


def test_a_tie_goes_to_the_leftmost():
    assert majority(acting([-1, -1, 0, 1], "abcd")) == 2
    # The leftmost ends first or last: where it stands in the list says nothing.
    assert majority(acting([-1, -1, 0, 2], "abcd")) == 3


def test_a_trajectory_that_ended_votes_for_that():
    """Below a, two leaves have ended and one went on."""
    tree = acting([-1, -1, -1, 2], "aaac")
    assert majority(tree) == 0
    assert majority(acting([-1, -1, -1, 1, 2], "aaacc")) == 3


def test_the_likelihood_is_that_of_a_token_along_the_whole_trajectory():
    tree = draw([-1, -1, 0, 0])
    for node, logprobs in zip(tree.nodes, [(-1.0,), (-0.7,), (-0.2, -0.3), (-0.6,)], strict=True):
        node.logprobs = logprobs
    assert likelihood(tree) == 2  # (1 + 0.2 + 0.3) / 3 = 0.5, beside 0.7 and 0.8
    tree.nodes[1].logprobs = (-0.5,)
    assert likelihood(tree) == 2, "a tie goes to the leftmost"
    tree.nodes[1].logprobs = (-0.4,)
    assert likelihood(tree) == 1
    tree.nodes[3].logprobs = ()
    with pytest.raises(PolicyFailure, match="majority"):
        likelihood(tree)


def grow(growth, policy=None, tasks=5, seed=3) -> Forest:
    policy = policy or RandomActions(explore=0.4)
    return asyncio.run(grow_forest(WORLD.tasks("L0", "train")[:tasks], WORLD, policy, growth, seed=seed))


@given(st.integers(0, 50), st.randoms(use_true_random=False))
def test_no_outcome_is_looked_at(seed, rng):
    for tree in grow(ahead(GROWTH, 1.0), tasks=1, seed=seed):
        chosen = majority(tree)
        for node in tree.nodes:
            node.success, node.done, node.reward = rng.random() < 0.5, rng.random() < 0.5, rng.random()
        assert majority(tree) == chosen


def test_the_leftmost_trajectory_is_the_one_without_branching():
    trees = grow(ahead(GROWTH, 1.0))
    plain = grow(chains(GROWTH, 1.0))
    assert sum(len(tree.leaves()) for tree in trees) > 5 * 3, "something was forked"
    for tree, single in zip(trees, plain, strict=True):
        assert along(tree, alone(tree)).nodes == single.nodes
        assert alone(tree) in tree.leaves()


def test_the_leftmost_trajectory_of_a_model_is_the_one_without_branching():
    folder = finished()[0].checkpoints / "cold-start"
    executor = InProcess(WORLD, LocalEngine(load_model(folder), load_tokenizer(folder), cache_bytes=10**7))
    tasks = WORLD.tasks("L1", "test")[:3]

    def played(growth):
        return asyncio.run(executor.grow(tasks, growth, seed=5, iteration=0))

    for tree, single in zip(played(ahead(GROWTH, 1.0)), played(chains(GROWTH, 1.0)), strict=True):
        path = along(tree, alone(tree))
        assert [node.completion for node in path.nodes] == [node.completion for node in single.nodes]
        assert [node.observation for node in path.nodes] == [node.observation for node in single.nodes]


def test_a_tree_is_the_same_alone_and_in_company():
    together, single = grow(ahead(GROWTH, 1.0)), grow(ahead(GROWTH, 1.0), tasks=1)
    assert replace(together.trees[0], forks=[]) == replace(single.trees[0], forks=[])
    assert all(tree.opened <= 8 for tree in together), "leaves do not move between tasks"


def test_rules_that_wait_for_outcomes_do_not_fork():
    rule = NewRoots()
    tree = draw([-1], {0: 0.0})
    tree.opened, tree.cap = 1, 8
    forest = Forest([tree], left=7)
    assert rule.when_idle(forest, random.Random(0))
    assert Ahead(rule).when_idle(forest, random.Random(0)) == []
    grown = grow(ahead(replace(GROWTH, branching=rule), 1.0))
    assert all(len(tree.leaves()) == 3 and not tree.forks for tree in grown)


def test_greedy_branches_are_refused():
    with pytest.raises(UsageError, match="temperature is 0"):
        ahead(GROWTH, 0.0)
