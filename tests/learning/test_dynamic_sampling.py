"""Dynamic sampling: further tasks in place of groups that say nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tiny import RECIPE
from trees import draw

from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.learning.dynamic_sampling import grow
from spark_rl.types import Forest, Fork, Spent, Task, Tree

TASKS = [Task("drawn", f"drawn/{number}", "find the key") for number in range(12)]


class Grower:
    """An executor that remembers what it was asked for; tasks in `told` have signal, and each tree costs 10 tokens."""

    def __init__(self, told: set[str], broken: frozenset[str] = frozenset()) -> None:
        self.told, self.broken = told, broken
        self.rounds: list[list[str]] = []

    async def grow(self, tasks, growth, *, seed, iteration):
        self.rounds.append([task.id for task in tasks])
        if all(task.id in self.broken for task in tasks):
            raise EnvironmentFailure("every tree failed")
        trees = [replace(draw([-1, -1]), task=task, forks=[Fork(index, 0, "after", 1)]) for index, task in enumerate(tasks)]
        return Forest(trees, iteration, seed, Spent(generated=10 * len(trees)))


def sampled(executor: Grower, resample: int, wanted: int = 4) -> Forest:
    recipe = replace(RECIPE, tasks_per_iteration=wanted, optimizer=replace(RECIPE.optimizer, resample=resample))

    def has_signal(tree: Tree) -> bool:
        return tree.task.id in executor.told

    return asyncio.run(grow(executor, TASKS, recipe, 1, has_signal))


def test_without_it_the_forest_is_the_iterations_tasks():
    executor = Grower(set())
    assert len(sampled(executor, 0)) == 4
    assert len(executor.rounds) == 1


def test_tasks_are_added_until_enough_have_signal_and_all_is_counted():
    executor = Grower({task.id for task in TASKS[::2]})
    forest = sampled(executor, 9)
    ids = [tree.task.id for tree in forest]
    assert len(set(ids)) == len(ids), "no task twice"
    assert sum(name in executor.told for name in ids) == 4, "as many as were wanted, and no more"
    sizes = list(map(len, executor.rounds))
    assert sizes == sorted(sizes, reverse=True)
    assert forest.spent.generated == 10 * len(forest)
    assert [fork.tree for tree in forest for fork in tree.forks] == list(range(len(forest)))


@pytest.mark.parametrize(("resample", "grown"), [(1, 8), (2, 12), (9, 12)])
def test_it_ends_after_so_many_times_or_with_the_tasks(resample, grown):
    assert len(sampled(Grower(set()), resample)) == grown


def test_the_same_tasks_follow_each_time():
    runs = [Grower({"drawn/3"}) for _ in range(2)]
    assert sampled(runs[0], 2) == sampled(runs[1], 2)
    assert runs[0].rounds == runs[1].rounds


def test_further_tasks_that_fail_are_counted_and_stop_nothing():
    first = Grower(set())
    sampled(first, 1)
    executor = Grower(set(), broken=frozenset(first.rounds[1]))
    forest = sampled(executor, 1)
    assert (len(forest), forest.spent.failed, forest.failures) == (4, 4, ["every tree failed"])


def test_it_cannot_be_had_together_with_keeping_such_groups():
    with pytest.raises(UsageError, match=r"without_signal must be drop"):
        replace(RECIPE.optimizer, resample=1, without_signal="keep")
