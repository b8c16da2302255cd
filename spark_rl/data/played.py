"""Trajectories that a policy plays on training tasks, separated by success.

Invariants
----------
* An episode is a rollout of RL, with the prompts of RL: one trajectory for each task and sample.
* Each task is played once under each sample number. The same call samples the same seeds again, so that a policy that
  stores its answers computes none twice.
* No trajectory is dropped in silence: it is won, lost, or named in `failures`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spark_rl.common.seeding import derive
from spark_rl.contracts import Grows, Growth
from spark_rl.data.demonstrations import as_demonstrations
from spark_rl.data.format import Demonstration, Origin
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.rollout.playing import chains
from spark_rl.types import Forest, Spent, Task

__all__ = ["Collected", "draw", "play_training"]


@dataclass
class Collected:
    """The trajectories of some episodes."""

    won: list[Demonstration] = field(default_factory=list[Demonstration])
    lost: list[Demonstration] = field(default_factory=list[Demonstration])
    failures: list[str] = field(default_factory=list[str])
    """A sentence for each trajectory that broke off: its environment failed, or the policy refused to go on."""
    spent: Spent = field(default_factory=Spent)

    @property
    def episodes(self) -> int:
        """Number of episodes that were begun."""
        return len(self.won) + len(self.lost) + len(self.failures)


def draw(tasks: Sequence[Task], count: int, seed: int) -> list[Task]:
    """Tasks in a random order, the first `count` of them (0: all)."""
    return sorted(tasks, key=lambda task: derive(seed, task.id, "collect"))[: count or None]


async def play_training(
    executor: Grows,
    tasks: Sequence[Task],
    growth: Growth,
    origin: Origin,
    *,
    temperature: float,
    seed: int = 0,
    samples: int = 1,
    count: int = 0,
    batch: int = 32,
    advance: Callable[[int], None] = lambda _: None,
) -> Collected:
    """Play training tasks, each `samples` times.

    Args:
        executor: grows the trajectories.
        tasks: different tasks of a training split.
        growth: gives prompt, horizon and token limit.
        origin: origin of the trajectories.
        temperature: sampling temperature; 0 is greedy.
        seed: seed of the samples.
        samples: episodes of each task.
        count: stop after this number of successes; 0 plays all tasks.
        batch: number of tasks that are played at once.
        advance: receives the number of finished episodes.

    Raises:
        UsageError: the prompt asks for answers without tags, which cannot be demonstrations.
        EnvironmentFailure: every trajectory broke off.
    """
    if growth.prompt.instructions not in ("full", "none"):
        raise UsageError(
            f"prompt.instructions is {growth.prompt.instructions}, but demonstrations need tagged answers: give full or none"
        )
    collected, chain_growth = Collected(), chains(growth, temperature)
    for sample in range(samples):
        start = 0
        while start < len(tasks) and (size := min(batch, count - len(collected.won)) if count else batch) > 0:
            part = tasks[start : start + size]
            start += size
            try:
                forest = await executor.grow(part, chain_growth, seed=seed, iteration=sample)
            except EnvironmentFailure as error:  # every task of this batch failed
                forest = Forest([], failures=[str(error)] * len(part))
            for trajectory in as_demonstrations(forest.trees, origin):
                (collected.won if trajectory.won else collected.lost).append(trajectory)
            collected.failures += forest.failures
            collected.spent += forest.spent
            advance(collected.episodes)
    if collected.failures and not collected.won and not collected.lost:
        raise EnvironmentFailure(f"all of {collected.episodes} episodes broke off; the first: {collected.failures[0]}")
    return collected
