"""Who plays, and how one trajectory a task is played: what evaluation and the collecting of trajectories share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Growth, Policy, World
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Forest, Sampling, Task, TreeShape

__all__ = ["Grows", "WithPolicy", "chains"]


class Grows(Protocol):
    """What playing needs of an executor."""

    async def grow(self, tasks: Sequence[Task], growth: Growth, *, seed: int, iteration: int) -> Forest:
        """One tree for each task."""
        ...


class WithPolicy:
    """Grows trees with a policy that reads text: a server, an expert, a person."""

    def __init__(self, policy: Policy, world: World) -> None:
        self.policy, self.world = policy, world

    async def grow(self, tasks: Sequence[Task], growth: Growth, *, seed: int, iteration: int) -> Forest:
        """One tree for each task."""
        return await grow_forest(tasks, self.world, self.policy, growth, seed=seed, iteration=iteration)


def chains(growth: Growth, temperature: float) -> Growth:
    """One trajectory a task, at a temperature of its own, otherwise as in training."""
    shape = TreeShape(budget=1, roots=1, horizon=growth.shape.horizon)
    return Growth(shape, Chains(), growth.prompt, Sampling(temperature, growth.sampling.max_tokens))
