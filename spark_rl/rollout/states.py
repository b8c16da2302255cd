"""Environment states to fork from later.

Invariants
----------
* A state that is reached is that after the recorded steps: a copy of a kept one, or a replay of which every observation was
  compared with the record.
* At most `KEPT_STATES` are held, whatever the forest's size, and `Spent.states_kept` says how many it came to.
"""

from __future__ import annotations

from collections import OrderedDict

from spark_rl.contracts import Environment, World
from spark_rl.environments.replay import replay
from spark_rl.types import Observation, Spent, Tree

__all__ = ["KEPT_STATES", "States"]

KEPT_STATES = 8192
"""Most states held for later forks; the oldest make room and are reached again by replay."""


class States:
    """What one forest keeps, by tree and node. Only worlds whose `fork_cost` is cheap are given to `keep`."""

    def __init__(self, world: World, spent: Spent) -> None:
        self._world, self._spent = world, spent
        self._kept: OrderedDict[tuple[int, int], tuple[Environment, Observation]] = OrderedDict()

    def keep(self, index: int, node: int, state: Environment, observation: Observation) -> None:
        """Hold the state after `node` of tree `index` (-1: the start)."""
        previous = self._kept.pop((index, node), None)
        self._kept[index, node] = (state, observation)
        if previous is None and len(self._kept) > KEPT_STATES:
            _, previous = self._kept.popitem(last=False)
        if previous is not None:
            previous[0].close()
        self._spent.states_kept = max(self._spent.states_kept, len(self._kept))

    def reach(self, index: int, tree: Tree, node: int) -> tuple[Environment, Observation]:
        """A fresh copy of the state after `node` (-1: the start), and what was observed there.

        Raises:
            ReplayMismatch: the world answered otherwise than it did when the tree was grown.
        """
        if (kept := self._kept.get((index, node))) is not None:
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
