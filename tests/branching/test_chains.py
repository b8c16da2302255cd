"""The control that never forks."""

from __future__ import annotations

import random

from trees import draw

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Branching
from spark_rl.types import Forest


def test_it_never_forks():
    tree, rng = draw([-1, 0, -1], mode="explore"), random.Random(0)
    assert isinstance(Chains(), Branching)
    assert [Chains().after_step(tree, 0, node, rng) for node in range(3)] == [None] * 3
    assert Chains().when_idle(Forest([tree]), rng) == []
