"""SPARK's rule on hand-made trees."""

from __future__ import annotations

import random

import pytest
from trees import draw

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.contracts import Branching
from spark_rl.errors import UsageError
from spark_rl.types import Forest, Fork

RNG = random.Random(0)


def explored(*modes: str | None):
    """A chain of steps in these modes."""
    tree = draw([-1, *range(len(modes) - 1)])
    for node, mode in zip(tree.nodes, modes, strict=True):
        node.mode = mode  # type: ignore[assignment]
    return tree


def test_it_is_a_branching_strategy():
    assert isinstance(ExploreTag(), Branching)


@pytest.mark.parametrize(("width", "extra"), [(2, 1), (4, 3)])
@pytest.mark.parametrize("at", ["after", "decision"])
def test_exactly_the_exploring_steps_ask_for_the_branching_factor(width, extra, at):
    """Eq. 5: B continuations where the step explores, one elsewhere; the first is there already."""
    tree, rule = explored("think", "explore", None, "explore"), ExploreTag(width, at)
    wishes = [rule.after_step(tree, 3, node, RNG) for node in range(4)]
    assert wishes == [None, Fork(3, 1, at, extra), None, Fork(3, 3, at, extra)]


def test_the_form_of_the_rest_of_the_answer_does_not_matter():
    """The tag is what was reasoned; a malformed or refused action is penalised elsewhere."""
    tree = explored("explore")
    tree.nodes[0].well_formed = tree.nodes[0].admissible = False
    assert ExploreTag().after_step(tree, 0, 0, RNG) == Fork(0, 0, "after", 1)


def test_nothing_is_wished_for_when_all_has_ended():
    assert ExploreTag().when_idle(Forest([explored("explore")]), RNG) == []


def test_chance_plays_no_part():
    rng = random.Random(5)
    before = rng.getstate()
    ExploreTag().after_step(explored("explore"), 0, 0, rng)
    assert rng.getstate() == before


@pytest.mark.parametrize("width", [1, 0, -2])
def test_a_fork_has_at_least_two_continuations(width):
    with pytest.raises(UsageError, match=f"branching.width is {width}: a fork needs at least 2 continuations"):
        ExploreTag(width)
