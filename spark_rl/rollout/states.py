"""Environment states of one tree to fork from later.

Invariants
----------
* A state that is reached is the state after the recorded steps: a copy of a kept one, or a replay of which every observation
  was compared with the record.
* A tree holds at most its share of `KEPT_STATES`, whatever the forest's size. `Spent.states_kept` says how many states the
  forest came to hold.
"""

from __future__ import annotations

from collections import OrderedDict

from spark_rl.contracts import Environment, World
from spark_rl.environments.replay import replay
from spark_rl.types import Observation, Spent, Tree

__all__ = ["KEPT_STATES", "States"]

KEPT_STATES = 8192
"""Most states that a forest holds for later forks; the oldest of a tree make room and are reached again by replay."""


class States:
    """What one tree keeps, by node. Only states of worlds whose `fork_cost` is cheap are given to `keep`."""

    def __init__(self, world: World, spent: Spent, most: int = KEPT_STATES) -> None:
        """Keep at most so many states."""
        self._world, self._spent, self._most = world, spent, max(most, 1)
        self._kept: OrderedDict[int, tuple[Environment, Observation]] = OrderedDict()

    def keep(self, node: int, state: Environment, observation: Observation) -> None:
        """Hold the state after a node (-1: the start)."""
        previous = self._kept.pop(node, None)
        self._kept[node] = (state, observation)
        if previous is None and len(self._kept) > self._most:
            _, previous = self._kept.popitem(last=False)
        elif previous is None:
            self._spent.states_kept += 1
        if previous is not None:
            previous[0].close()

    def reach(self, tree: Tree, node: int) -> tuple[Environment, Observation]:
        """A fresh copy of the state after a node (-1: the start), and what was observed there.

        Raises:
            ReplayMismatch: the world answered otherwise than it did when the tree was grown.
        """
        if (kept := self._kept.get(node)) is not None:
            self._spent.env_forks += 1
            return kept[0].fork(), kept[1]
        path = [tree.nodes[i] for i in tree.trajectory(node)]
        state = self._world.make()
        expected = [tree.observation, *(step.observation for step in path)]
        observation = replay(state, tree.task, [step.action for step in path], expected)
        self._spent.replayed += len(path)
        return state, observation

    def close(self) -> None:
        """Let go of all."""
        for state, _ in self._kept.values():
            state.close()
        self._kept.clear()
