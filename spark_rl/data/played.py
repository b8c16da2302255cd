"""Trajectories that a policy plays on training tasks, kept apart by how they end.

Invariants
----------
* What is played is what a rollout plays: one trajectory a task and sample, with the prompts of RL.
* Each task is played once under each sample number, and the same call samples the same again, so that a policy which
  remembers its answers asks for none twice.
* Nothing is left out in silence: a trajectory is won, lost, or named in `failures`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spark_rl.common.seeding import derive
from spark_rl.contracts import Grows, Growth
from spark_rl.data.demonstrations import kept
from spark_rl.data.format import Demonstration, Origin
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.rollout.playing import chains
from spark_rl.types import Forest, Spent, Task

__all__ = ["Collected", "draw", "play_training"]


@dataclass
class Collected:
    """What playing came to."""

    won: list[Demonstration] = field(default_factory=list[Demonstration])
    lost: list[Demonstration] = field(default_factory=list[Demonstration])
    failures: list[str] = field(default_factory=list[str])
    """A sentence for each trajectory that broke off: its environment failed, or the policy refused to go on."""
    spent: Spent = field(default_factory=Spent)

    @property
    def episodes(self) -> int:
        """How many were begun."""
        return len(self.won) + len(self.lost) + len(self.failures)


def draw(tasks: Sequence[Task], count: int, seed: int) -> list[Task]:
    """Tasks in a random order, the first `count` of them (0: all)."""
    return sorted(tasks, key=lambda task: derive(seed, task.id, "collect"))[: count or None]


async def play_training(
    executor: Grows,
    tasks: Sequence[Task],
    growth: Growth,
    come_from: Origin,
    *,
    temperature: float,
    seed: int = 0,
    samples: int = 1,
    count: int = 0,
    batch: int = 32,
    advance: Callable[[int], None] = lambda _: None,
) -> Collected:
    """Play training tasks, each `samples` times; see `Collected`.

    Args:
        executor: grows the trajectories.
        tasks: of a training split, no one twice.
        growth: its prompt, horizon and token limit are used.
        come_from: who plays, and where.
        temperature: of sampling; 0 is greedy.
        seed: of the samples.
        samples: episodes of each task.
        count: stop when so many are won; 0 plays all.
        batch: tasks played at once.
        advance: told how many episodes are done.

    Raises:
        UsageError: the prompt asks for answers without tags, which are not demonstrated.
        EnvironmentFailure: every trajectory broke off.
    """
    if growth.prompt.instructions not in ("full", "none"):
        raise UsageError(
            f"prompt.instructions is {growth.prompt.instructions}: what is kept to be learnt has tagged answers, so give "
            "full or none"
        )
    found, how = Collected(), chains(growth, temperature)
    for sample in range(samples):
        start = 0
        while start < len(tasks) and (size := min(batch, count - len(found.won)) if count else batch) > 0:
            part = tasks[start : start + size]
            start += size
            try:
                forest = await executor.grow(part, how, seed=seed, iteration=sample)
            except EnvironmentFailure as error:  # in every task of this batch
                forest = Forest([], failures=[str(error)] * len(part))
            for shown in kept(forest.trees, come_from):
                (found.won if shown.won else found.lost).append(shown)
            found.failures += forest.failures
            found.spent += forest.spent
            advance(found.episodes)
    if found.failures and not found.won and not found.lost:
        raise EnvironmentFailure(f"all of {found.episodes} episodes broke off; the first: {found.failures[0]}")
    return found
