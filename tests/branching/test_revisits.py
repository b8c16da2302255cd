"""Going back after the outcomes, with the control and the mixture of both, on hand-made groups."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from grown import chains, ended

from spark_rl.branching.hybrid import Hybrid
from spark_rl.branching.new_roots import NewRoots
from spark_rl.branching.revisits import Revisits
from spark_rl.contracts import Branching
from spark_rl.types import Forest, Fork, Tree

DRAWS = 2000


def group(lengths: Sequence[int], won: Sequence[int]) -> Tree:
    tree = chains(lengths, [float(outcome) for outcome in won])
    tree.cap = 99
    return tree


def share(rule: Revisits, tree: Tree) -> dict[int, float]:
    """How often each step is gone back to."""
    rng = random.Random(0)
    counts = Counter(rule.fork(tree, 3, rng).node for _ in range(DRAWS))
    return {node: count / DRAWS for node, count in counts.items() if node is not None}


def near(*expected: float) -> object:
    return pytest.approx(list(expected), abs=0.045)  # four standard deviations


@pytest.mark.parametrize("rule", [Revisits(), NewRoots(), Hybrid()], ids=str)
def test_they_are_branching_strategies_that_only_wait(rule):
    assert isinstance(rule, Branching)
    assert rule.after_step(group([3], [0]), 0, 0, random.Random(0)) is None


def test_the_rarer_outcome_is_gone_back_to_and_no_last_step():
    """Nodes 0-2 and 3-5 fail, 6-9 win."""
    found = share(Revisits(), group([3, 3, 4], [0, 0, 1]))
    assert sorted(found) == [6, 7, 8]
    assert [found[6], found[7], found[8]] == near(1 / 3, 1 / 3, 1 / 3)
    assert sorted(share(Revisits(), group([3, 3, 4], [1, 1, 0]))) == [6, 7, 8]


def test_trajectories_are_equally_likely_however_long():
    found = share(Revisits(), group([2, 5], [0, 0]))
    assert [found[0], *(found[node] for node in (2, 3, 4, 5))] == near(1 / 2, 1 / 8, 1 / 8, 1 / 8, 1 / 8)


def test_a_tie_is_a_coin_and_without_the_option_any_trajectory_serves():
    found = share(Revisits(), group([2, 2, 2, 2], [1, 0, 0, 1]))
    assert [found[node] for node in (0, 2, 4, 6)] == near(1 / 4, 1 / 4, 1 / 4, 1 / 4)
    found = share(Revisits(rarer=False), group([2, 2, 2], [1, 0, 0]))
    assert [found[node] for node in (0, 2, 4)] == near(1 / 3, 1 / 3, 1 / 3)


def test_steps_by_entropy_and_depth():
    """Mean entropies 2, 1, 1 at depths 1, 2, 3: weights 2, 2, 3."""
    tree = group([4], [0])
    for node, values in zip(tree.nodes, [(2.0, 2.0), (2.0, 0.0), (1.0,), (9.0,)], strict=True):
        node.entropies = values
    found = share(Revisits(steps="entropy"), tree)
    assert [found[0], found[1], found[2]] == near(2 / 7, 2 / 7, 3 / 7)
    for node in tree.nodes:
        node.entropies = (0.0,)
    found = share(Revisits(steps="entropy"), tree)
    assert [found[0], found[1], found[2]] == near(1 / 3, 1 / 3, 1 / 3)


def test_tagged_steps_where_there_are_any():
    tree = group([4, 4], [0, 0])
    tree.nodes[1].mode = tree.nodes[7].mode = "explore"  # 7 is a last step
    assert share(Revisits(tagged=True), tree) == {1: 1.0}
    tree.nodes[1].mode = "think"
    assert sorted(share(Revisits(tagged=True), tree)) == [0, 1, 2, 4, 5, 6]


def test_where_there_is_only_the_last_step_to_take_again_it_is_a_new_root():
    """The rarer outcome was had in one step: the others serve; all were: the start."""
    assert sorted(share(Revisits(), group([1, 3, 3], [1, 0, 0]))) == [1, 2, 4, 5]
    assert Revisits().fork(group([1, 1], [1, 0]), 3, random.Random(0)) == Fork(3, None, "decision", 1)


def test_steps_of_a_fork_are_gone_back_to_as_well():
    tree = ended([-1, 0, 1, 0, 3], [0, 0])  # one root, forked after its first step
    found = share(Revisits(), tree)
    assert [found[0], found[1], found[3]] == near(1 / 2, 1 / 4, 1 / 4)


def test_forks_carry_their_moment_and_the_exclusion():
    assert Revisits(exclude=True).fork(group([2], [0]), 3, random.Random(0)) == Fork(3, 0, "decision", 1, exclude=True)


def test_the_control_spends_the_same_leaves_on_the_same_tasks():
    forest = Forest([group([3, 3], [0, 0]), group([3, 3], [1, 0]), group([3, 3], [1, 1])], left=5)
    plans = [rule.when_idle(forest, random.Random(4)) for rule in (Revisits(), NewRoots(), Hybrid())]
    assert [[fork.tree for fork in plan] for plan in plans] == [[1, 0, 1, 0, 1]] * 3
    assert all(fork.node is not None for fork in plans[0])
    assert all(fork.node is None for fork in plans[1])
    assert [fork.node is None for fork in plans[2]] == [False, True, False, True, False]
    assert [fork.exclude for fork in plans[2]] == [True, False, True, False, True]


def test_one_by_one_is_passed_through():
    forest = Forest([group([3, 3], [0, 0]), group([3, 3], [1, 0])], left=5)
    for rule in (Revisits(one_by_one=True), NewRoots(one_by_one=True), Hybrid(Revisits(one_by_one=True))):
        assert [fork.tree for fork in rule.when_idle(forest, random.Random(4))] == [1, 0]
