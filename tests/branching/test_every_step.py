"""The control that forks everywhere."""

from __future__ import annotations

import random

import pytest
from trees import draw

from spark_rl.branching.every_step import EveryStep
from spark_rl.contracts import Branching
from spark_rl.errors import UsageError
from spark_rl.types import Forest, Fork


def test_each_step_asks_for_the_branching_factor():
    tree, rng = draw([-1, 0, 1]), random.Random(0)
    rule = EveryStep(3, "decision")
    assert isinstance(rule, Branching)
    assert [rule.after_step(tree, 2, node, rng) for node in range(3)] == [Fork(2, node, "decision", 2) for node in range(3)]
    assert rule.when_idle(Forest([tree]), rng) == []


def test_a_fork_has_at_least_two_continuations():
    with pytest.raises(UsageError, match=r"branching.width is 1"):
        EveryStep(1)
