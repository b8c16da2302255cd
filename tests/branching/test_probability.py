"""The control that forks at random."""

from __future__ import annotations

import random

import pytest
from trees import draw

from spark_rl.branching.probability import Probability
from spark_rl.contracts import Branching
from spark_rl.errors import UsageError
from spark_rl.types import Forest, Fork

TREE = draw([-1, 0, 1])


def test_it_is_a_branching_strategy():
    assert isinstance(Probability(), Branching)


def test_never_and_always():
    rng = random.Random(0)
    assert [Probability(0.0).after_step(TREE, 0, node, rng) for node in range(3)] == [None] * 3
    always = Probability(1.0, width=3, at="decision")
    assert [always.after_step(TREE, 2, node, rng) for node in range(3)] == [
        Fork(2, node, "decision", 2) for node in range(3)
    ]


def test_it_forks_as_often_as_it_says_wherever_the_agent_explores():
    rng = random.Random(1)
    tree = draw([-1], mode="explore")
    share = sum(Probability(0.3).after_step(tree, 0, 0, rng) is not None for _ in range(4000)) / 4000
    assert share == pytest.approx(0.3, abs=0.03)  # four standard deviations


def test_its_only_chance_is_the_generator_it_is_given():
    wishes = [
        [Probability(0.5).after_step(TREE, 0, 0, rng) for _ in range(30)] for rng in (random.Random(2), random.Random(2))
    ]
    assert wishes[0] == wishes[1]


def test_nothing_is_wished_for_when_all_has_ended():
    assert Probability(1.0).when_idle(Forest([TREE]), random.Random(0)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 1}, "branching.width is 1: a fork needs at least 2 continuations"),
        ({"probability": 1.5}, "branching.probability is 1.5: it must lie between 0 and 1"),
        ({"probability": -0.1}, "branching.probability is -0.1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Probability(**settings)
