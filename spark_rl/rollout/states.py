"""Environment states of one tree that later forks start from.

Invariants
----------
* `reach` gives the state after the recorded steps: a copy of a stored state, or a replay whose every observation is compared
  with the record.
* A tree holds at most its share of `KEPT_STATES`, whatever the forest's size. `Spent.states_kept` counts the states
  that the forest stored.
"""

from __future__ import annotations

from collections import OrderedDict

from spark_rl.contracts import Environment, World
from spark_rl.environments.replay import replay
from spark_rl.types import Observation, Spent, Tree

__all__ = ["KEPT_STATES", "States"]

KEPT_STATES = 8192
"""Most states that a forest holds for later forks. A full tree drops its oldest state; replay reaches that state again."""


class States:
    """The stored states of one tree, by node. Only states of worlds whose `fork_cost` is cheap are given to `keep`."""

    def __init__(self, world: World, most: int = KEPT_STATES) -> None:
        """Store at most `most` states."""
        self._world, self._most = world, max(most, 1)
        self._kept: OrderedDict[int, tuple[Environment, Observation]] = OrderedDict()

    def keep(self, node: int, state: Environment, observation: Observation, spent: Spent) -> None:
        """Store the state after a node (-1: the start), which is counted in `spent`."""
        previous = self._kept.pop(node, None)
        self._kept[node] = (state, observation)
        if previous is None and len(self._kept) > self._most:
            _, previous = self._kept.popitem(last=False)
        elif previous is None:
            spent.states_kept += 1
        if previous is not None:
            previous[0].close()

    def reach(self, tree: Tree, node: int, spent: Spent) -> tuple[Environment, Observation]:
        """A fresh copy of the state after a node (-1: the start), and its observation; the cost is added to `spent`.

        Raises:
            ReplayMismatch: the world gave another observation than when the tree was grown.
        """
        if (kept := self._kept.get(node)) is not None:
            spent.env_forks += 1
            return kept[0].fork(), kept[1]
        path = [tree.nodes[i] for i in tree.trajectory(node)]
        state = self._world.make()
        expected = [tree.observation, *(step.observation for step in path)]
        observation = replay(state, tree.task, [step.action for step in path], expected)
        spent.replayed += len(path)
        return state, observation

    def close(self) -> None:
        """Close all stored states."""
        for state, _ in self._kept.values():
            state.close()
        self._kept.clear()
