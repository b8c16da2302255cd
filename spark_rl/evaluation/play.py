"""Evaluation: every task of a level exactly once, or exactly `samples` times.

A task whose environment fails counts as not solved, and is reported; it is never left out of the denominator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spark_rl.common.seeding import derive
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Grows, Growth
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.evaluation.episodes import Played, Shard, episode
from spark_rl.evaluation.lookahead import Choose, ahead
from spark_rl.evaluation.results import LevelResult, conclude
from spark_rl.rollout.playing import chains
from spark_rl.rollout.tasks import preload
from spark_rl.types import Forest, Task

__all__ = ["evaluate", "measure", "play"]


async def evaluate(executor: Grows, tasks: Sequence[Task], growth: Growth, **settings: Any) -> LevelResult:
    """Play each task of a level `samples` times; takes the arguments of `play`.

    Returns:
        The result of the level, by `conclude`.

    Raises:
        EnvironmentFailure: the environment failed in every episode.
    """
    played = await play(executor, tasks, growth, **settings)
    return conclude(tasks, played, samples=settings.get("samples", 1))


async def measure(
    executor: Grows, recipe: Recipe, tasks: Sequence[Task], advance: Callable[[int], None] = lambda _: None
) -> LevelResult:
    """Play each task once, with the settings of the recipe for its own evaluations; otherwise like `evaluate`."""
    settings = recipe.evaluation
    return await evaluate(
        executor,
        tasks,
        recipe.growth,
        temperature=settings.temperature,
        seed=derive(recipe.seed, "evaluation"),
        batch=settings.batch,
        advance=advance,
    )


async def play(
    executor: Grows,
    tasks: Sequence[Task],
    growth: Growth,
    *,
    temperature: float,
    seed: int,
    samples: int = 1,
    batch: int = 64,
    choose: Choose | None = None,
    played: Played | None = None,
    shard: Shard | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Played:
    """Play the episodes that have not been played yet.

    A batch is up to `batch` tasks in order, each once, with one sample number. The sample number, `seed` and the task
    determine the randomness of an episode. A shard takes whole batches, so that its episodes are the same as without shards.

    Args:
        executor: grows the trajectories.
        tasks: the tasks, each played exactly `samples` times.
        growth: how trees grow; without `choose`, only the prompt, the horizon and the token limit are used.
        temperature: the temperature of sampling; 0 is greedy.
        seed: the seed of the samples.
        samples: episodes of each task.
        batch: tasks played at once.
        choose: chooses the leaf of a tree that counts; None plays one trajectory for each task.
        played: earlier episodes, to which the new ones are added.
        shard: the share of the batches to play; None: all.
        advance: called with the number of finished episodes.

    Raises:
        EnvironmentFailure: the environment failed in all episodes.
    """
    if len({task.id for task in tasks}) < len(tasks):
        raise UsageError("the world names a task twice in one split: each must be there once")
    how = ahead(growth, temperature) if choose else chains(growth, temperature)
    played = Played() if played is None else played
    parts = [(sample, tasks[i : i + batch]) for sample in range(samples) for i in range(0, len(tasks), batch)]
    done = sum(len(part) for sample, part in parts if played.holds(part, sample))
    mine = [part for index, part in enumerate(parts) if shard is None or shard.holds(index)]
    left = [(sample, part) for sample, part in mine if not played.holds(part, sample)]
    tried = 0
    for index, (sample, part) in enumerate(left):
        preload(executor, [task for _, following in left[index + 1 : index + 2] for task in following])
        try:
            forest = await executor.grow(part, how, seed=seed, iteration=sample)
        except EnvironmentFailure as error:  # in every task of this batch
            forest = Forest([], failures=[str(error)])
        _add(played, part, sample, forest, choose)
        done, tried = done + len(part), tried + len(part)
        advance(done)
    if tried and not played.episodes:
        raise EnvironmentFailure(f"the environment failed in all of {tried} episodes; the first: {played.failures[0]}")
    return played


def _add(played: Played, part: Sequence[Task], sample: int, forest: Forest, choose: Choose | None) -> None:
    """Add the episodes of a batch, after a check that they are of its tasks."""
    episodes = [episode(tree, sample, choose) for tree in forest]
    ids = [one.task for one in episodes]
    assert set(ids) <= {task.id for task in part}, "no other task was played"
    assert len(set(ids)) == len(ids), "each task was played once"
    played.failures += forest.failures
    if episodes:
        played.add(part, sample, episodes, forest.spent)
