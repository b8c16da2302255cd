"""States to fork from later: kept up to a bound, else replayed and compared."""

from __future__ import annotations

import pytest
from forking import Lock, Locks, lock
from trees import draw

from spark_rl.errors import ReplayMismatch
from spark_rl.rollout.states import States
from spark_rl.types import Observation, Spent, Tree


class Closing(Lock):
    """Tells when it is closed."""

    closed: list[tuple[str, ...]] = []  # noqa: RUF012

    def close(self) -> None:
        self.closed.append(self.turned)


def opened() -> Tree:
    """A sun, then a moon."""
    tree = draw([-1, 0])
    tree.task, tree.observation = lock(3), "wheel 0"
    for depth, (node, action) in enumerate(zip(tree.nodes, ("sun", "moon"), strict=True), start=1):
        node.action, node.observation = action, f"wheel {depth}"
    return tree


def test_a_kept_state_is_copied_and_another_one_replayed():
    spent, tree = Spent(), opened()
    states = States(Locks())
    states.keep(0, Lock(wheels=3, turned=("sun",)), Observation("wheel 1"), spent)
    kept, seen = states.reach(tree, 0, spent)
    assert (kept.state_key(), seen.text, spent.env_forks, spent.replayed) == ("wheel 1", "wheel 1", 1, 0)
    kept.step("star")
    assert states.reach(tree, 0, spent)[0].state_key() == "wheel 1"  # untouched by what its copy did
    replayed, seen = states.reach(tree, 1, spent)
    assert (replayed.state_key(), seen.text, spent.env_forks, spent.replayed) == ("wheel 2", "wheel 2", 2, 2)
    start, seen = states.reach(tree, -1, spent)
    assert (start.state_key(), seen.text, spent.replayed) == ("wheel 0", "wheel 0", 2)


def test_a_replay_that_differs_is_an_error():
    tree = opened()
    tree.nodes[0].observation = "a lamp"
    with pytest.raises(ReplayMismatch):
        States(Locks()).reach(tree, 0, Spent())


def test_what_is_held_is_bounded_reported_and_closed():
    Closing.closed.clear()
    spent, tree = Spent(), opened()
    states = States(Locks(), most=2)
    for node, turned in ((-1, ()), (0, ("sun",)), (0, ("sun",)), (1, ("sun", "moon"))):
        states.keep(node, Closing(turned=turned), Observation(""), spent)
    assert Closing.closed == [("sun",), ()]  # one that was kept before, and the oldest
    assert spent.states_kept == 2
    states.reach(tree, -1, spent)
    assert spent.env_forks == 0  # gone: reached from the start instead
    states.close()
    assert Closing.closed[2:] == [("sun",), ("sun", "moon")]


def test_the_most_states_held_is_no_sum():
    spent = Spent(states_kept=5, generated=1)
    spent += Spent(states_kept=3, generated=2)
    assert (spent.states_kept, spent.generated) == (5, 3)
