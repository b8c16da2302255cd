"""Pacing another rule, on hand-made trees."""

from __future__ import annotations

import random

import pytest
from trees import draw

from spark_rl.branching.every_step import EveryStep
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.branching.paced import Paced
from spark_rl.branching.revisits import Revisits
from spark_rl.contracts import Branching
from spark_rl.errors import UsageError
from spark_rl.types import Forest, Fork, Tree

RNG = random.Random(0)


def growing(parents: list[int], *forks: Fork, cap: int = 20, horizon: int = 10) -> Tree:
    """A tree under way with these forks granted, whose leaves are counted."""
    tree = draw(parents)
    tree.forks, tree.cap, tree.horizon = list(forks), cap, horizon
    tree.opened = sum(parent < 0 for parent in parents) + sum(fork.extra for fork in forks)
    return tree


CHAIN = [-1, 0, 1, 2, 3, 4]
"""Six steps in a row."""


def extras(rule: Paced, tree: Tree) -> list[int]:
    """What is wished for at each node, nothing being granted."""
    return [fork.extra if (fork := rule.after_step(tree, 0, node, RNG)) else 0 for node in range(len(tree.nodes))]


def test_it_is_a_branching_strategy():
    assert isinstance(Paced(), Branching)


def test_as_it_comes_it_changes_nothing():
    tree = growing(CHAIN, Fork(0, 0, "after", 1))
    tree.nodes[2].mode = "explore"
    assert extras(Paced(EveryStep(3)), tree) == [2] * 6
    assert extras(Paced(ExploreTag()), tree) == [0, 0, 1, 0, 0, 0]


def test_the_first_steps_are_skipped():
    assert extras(Paced(EveryStep(), skip=2), growing(CHAIN)) == [0, 0, 1, 1, 1, 1]


def test_forks_of_a_path_keep_their_distance():
    assert extras(Paced(EveryStep(), gap=3), growing(CHAIN, Fork(0, 1, "after", 1))) == [1, 0, 0, 0, 1, 1]


def test_other_paths_do_not_matter():
    """Two roots, each with a chain; the first was forked at its second step."""
    tree = growing([-1, -1, 0, 1, 2, 3], Fork(0, 2, "after", 1))
    assert extras(Paced(EveryStep(), gap=3), tree) == [1, 1, 0, 1, 0, 1]


def test_a_step_sampled_again_lies_on_the_paths_of_its_siblings():
    """Node 1 was sampled again: node 2 is the result, 3 and 4 follow the two; 5 follows 4."""
    tree = growing([-1, 0, 0, 1, 2, 4], Fork(0, 1, "decision", 1))
    assert extras(Paced(EveryStep(), gap=2), tree) == [1, 0, 0, 0, 0, 1]


def test_new_roots_are_no_forks_of_a_path():
    assert extras(Paced(EveryStep(), gap=9), growing(CHAIN, Fork(0, None, "after", 1))) == [1] * 6


def test_leaves_are_released_over_the_horizon():
    """Four beyond the root, ten steps: ceil(0.4 d) by depth d."""
    wide = Paced(EveryStep(9), spread=True)
    assert extras(wide, growing(CHAIN, cap=5)) == [1, 1, 2, 2, 2, 3]
    assert extras(wide, growing(CHAIN, Fork(0, 0, "after", 1), Fork(0, 2, "after", 1), cap=5)) == [0, 0, 0, 0, 0, 1]
    assert extras(wide, growing(CHAIN, cap=5, horizon=6)) == [1, 2, 2, 3, 4, 4]  # at the horizon itself nothing forks


def test_a_root_has_its_share():
    """Two roots with a chain each; the first has one extra leaf, and the second's first step was sampled again."""
    forks = Fork(0, 2, "after", 1), Fork(0, 1, "decision", 1)
    tree = growing([-1, -1, 0, 1, 2, 3], *forks)
    assert extras(Paced(EveryStep(4), per_root=1), tree) == [0] * 6
    assert extras(Paced(EveryStep(4), per_root=3), tree) == [2] * 6
    assert extras(Paced(EveryStep(4), per_root=2), growing([-1, -1, 0, 1, 2, 3], forks[0])) == [1, 2, 1, 2, 1, 2]


def test_what_the_rule_wishes_for_when_idle_is_passed_on():
    forest = Forest([growing([-1, -1, 0, 1], cap=4)], left=2)
    assert Paced(Revisits(), skip=9).when_idle(forest, random.Random(1)) == Revisits().when_idle(forest, random.Random(1))


@pytest.mark.parametrize(("name", "value"), [("gap", -1), ("skip", -1), ("per_root", -1)])
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(UsageError, match=f"branching.{name} is {value}: it must be at least"):
        Paced(**{name: value})
