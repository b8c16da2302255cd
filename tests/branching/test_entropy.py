"""Forks where the policy is unsure, on hand-made entropies."""

from __future__ import annotations

import random

import pytest
from trees import draw

from spark_rl.branching.entropy import Entropy, step_entropy
from spark_rl.contracts import Branching
from spark_rl.errors import UsageError
from spark_rl.types import Forest, Fork

RNG = random.Random(0)


def unsure(*entropies: tuple[float, ...]):
    """Two roots, the first of which goes on as a chain."""
    tree = draw([-1, -1, 0, 2, 3])
    for node, values in zip(tree.nodes, entropies, strict=True):
        node.entropies = values
    return tree


TREE = unsure((1.0, 0.0), (3.0, 0.0), (2.0, 1.5), (4.0, 0.0), (0.0, 3.5))
"""First tokens 1, 3, 2, 4, 0, of which the roots' mean is 2; means 0.5, 1.5, 1.75, 2, 1.75, of which it is 1."""


def test_it_is_a_branching_strategy():
    assert isinstance(Entropy(), Branching)


@pytest.mark.parametrize(
    ("rule", "forked"),
    [
        (Entropy(1.5, "first"), [3]),  # 4 of 2 is twice; 3 of 2 is not more than 1.5 times
        (Entropy(1.4, "first"), [1, 3]),
        (Entropy(1.5, "step"), [2, 3, 4]),
        (Entropy(1.75, "step"), [3]),
        (Entropy(0.0, "first"), [0, 1, 2, 3]),  # not where the policy was certain
        (Entropy(9.0, "first"), []),
    ],
    ids=str,
)
def test_steps_less_sure_than_the_first_ones_are_forked(rule, forked):
    assert [node for node in range(5) if rule.after_step(TREE, 0, node, RNG)] == forked


def test_its_wish_has_the_width_and_the_moment():
    assert Entropy(1.0, "first", 4, "decision").after_step(TREE, 7, 3, RNG) == Fork(7, 3, "decision", 3)


def test_certain_first_steps_make_any_doubt_a_fork():
    tree = unsure((0.0,), (0.0,), (0.0,), (0.1,), (0.0,))
    assert [node for node in range(5) if Entropy().after_step(tree, 0, node, RNG)] == [3]


def test_what_the_policy_does_not_say_is_an_error():
    with pytest.raises(UsageError, match="use the local engine, or a rule without entropies"):
        step_entropy(draw([-1]).nodes[0], "first")


def test_nothing_is_wished_for_when_all_has_ended():
    assert Entropy().when_idle(Forest([TREE]), RNG) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 1}, "branching.width is 1: a fork needs at least 2 continuations"),
        ({"threshold": -1.0}, "branching.threshold is -1.0: it must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Entropy(**settings)
