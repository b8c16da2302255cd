"""What holds of every forest, for every rule: `forking.check`, and the same forest from the same seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from forking import Hand, Locks, check, grow
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.branching.entropy import Entropy
from spark_rl.branching.every_step import EveryStep
from spark_rl.branching.hybrid import Hybrid
from spark_rl.branching.new_roots import NewRoots
from spark_rl.branching.paced import Paced
from spark_rl.branching.probability import Probability
from spark_rl.branching.revisits import Revisits
from spark_rl.contracts import Branching
from spark_rl.errors import UsageError

MOMENTS = st.sampled_from(["after", "decision"])
WIDTHS = st.integers(2, 4)
FREE = st.one_of(
    st.builds(EveryStep, WIDTHS, MOMENTS),
    st.builds(Entropy, st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from(["first", "step"]), WIDTHS, MOMENTS),
    st.builds(Probability, st.just(0.5), WIDTHS, MOMENTS),
)
REVISITS = st.builds(
    Revisits, st.booleans(), st.booleans(), st.sampled_from(["uniform", "entropy"]), st.booleans(), st.booleans()
)
RULES = st.one_of(
    FREE,
    st.builds(Paced, FREE, st.integers(0, 3), st.integers(0, 3), st.booleans(), st.integers(0, 2)),
    REVISITS,
    st.builds(NewRoots, st.booleans()),
    st.builds(Hybrid, REVISITS),
)


@settings(max_examples=400, deadline=None)
@given(
    rule=RULES,
    wheels=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    roots=st.integers(1, 4),
    more=st.integers(0, 6),
    spare=st.integers(0, 6),
    horizon=st.integers(1, 7),
    sun=st.sampled_from([0.0, 0.6, 1.0]),
    fork_cost=st.sampled_from(["cheap", "replay"]),
    seed=st.integers(0, 99),
)
def test_every_rule_keeps_the_rules(rule, wheels, roots, more, spare, horizon, sun, fork_cost, seed):
    shape = {"roots": roots, "budget": roots + more, "cap": roots + more + spare, "horizon": horizon}
    policy = Hand(sun)
    forest = grow(wheels, rule, policy, world=Locks(fork_cost), seed=seed, **shape)
    check(forest, policy, **shape)
    if not isinstance(rule, Revisits | NewRoots | Hybrid):
        return
    # Groups that have only won get nothing; the others get all, as far as their caps go.
    solved = [tree for tree in forest if all(tree.nodes[leaf].success for leaf in tree.leaves())]
    assert not any(tree.forks for tree in solved)
    spent = sum(tree.opened for tree in forest) == len(forest) * shape["budget"]
    assert spent or all(tree.opened == tree.cap for tree in forest if tree not in solved)


@settings(max_examples=30, deadline=None)
@given(rule=RULES, seed=st.integers(0, 9))
def test_one_rule_and_seed_grow_one_forest(rule: Branching, seed: int):
    shape: dict[str, Any] = {"roots": 2, "budget": 5, "cap": 8, "horizon": 6}
    first, again = (grow([2, 4], rule, Hand(), seed=seed, **shape) for _ in range(2))
    assert first == again
    replayed = grow([2, 4], rule, Hand(), world=Locks("replay"), seed=seed, **shape)
    assert replayed.trees == first.trees
    assert replayed.spent.states_kept == 0


@pytest.mark.parametrize("rule", [Revisits(steps="entropy"), Entropy(), Paced(Entropy())], ids=str)
def test_without_entropies_a_rule_that_needs_them_says_so(rule: Branching):
    with pytest.raises(UsageError, match="needs the entropy of each token, which this policy does not give"):
        grow([5, 5], rule, Hand(sun=0.5, entropies=False), roots=2, budget=4, horizon=6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), sun=st.floats(0.3, 1.0))
def test_counting_active_leaves_bounds_each_round_and_not_the_group(seed: int, sun: float):
    shape: dict[str, Any] = {"roots": 2, "budget": 4, "horizon": 8, "counted": "active"}
    (tree,) = grow([4], EveryStep(), Hand(sun=sun), seed=seed, **shape)
    widths = Counter(node.depth for node in tree.nodes)
    assert max(widths.values()) <= 4
    assert tree.opened == len(tree.leaves())


def test_finished_leaves_make_room_where_only_active_ones_count():
    shape: dict[str, Any] = {"roots": 2, "budget": 4, "horizon": 8}
    created = [len(grow([4], EveryStep(), seed=seed, **shape).trees[0].leaves()) for seed in range(9)]
    active = [len(grow([4], EveryStep(), seed=seed, counted="active", **shape).trees[0].leaves()) for seed in range(9)]
    assert set(created) == {4}
    assert min(active) == 4
    assert max(active) > 4
