"""Dynamic sampling: grow trees for further tasks in place of groups without signal (DAPO, arXiv 2503.14476, section 3.2).

Invariants
----------
* No task is grown twice in an iteration, and a forest has at most `tasks_per_iteration` groups with signal.
* Every tree that was grown stays in the forest, and its cost in `spent`, even if the update leaves the tree out.
* The choice of further tasks depends on recipe, iteration and earlier trees alone, so a resumed run chooses the same tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from spark_rl.common.seeding import derive
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Grows
from spark_rl.errors import EnvironmentFailure
from spark_rl.rollout.tasks import choose_tasks
from spark_rl.types import Forest, Task, Tree

__all__ = ["grow", "join"]


async def grow(
    executor: Grows, tasks: Sequence[Task], recipe: Recipe, iteration: int, has_signal: Callable[[Tree], bool]
) -> Forest:
    """The forest of an iteration. With `optimizer.resample`, trees are added until enough groups have signal.

    Args:
        executor: grows the trees.
        tasks: the training split.
        recipe: says how many tasks are grown, how they are grown, and how often further tasks may follow.
        iteration: number of the iteration, from 1.
        has_signal: whether the policy can learn from a group.

    Raises:
        EnvironmentFailure: the environment failed in every task of the first round.
    """
    wanted = recipe.tasks_per_iteration
    chosen = choose_tasks(tasks, wanted, seed=recipe.seed, iteration=iteration)
    forest = await executor.grow(chosen, recipe.growth, seed=recipe.seed, iteration=iteration)
    taken = {task.id for task in chosen}
    for again in range(1, recipe.optimizer.resample + 1):
        missing = wanted - sum(map(has_signal, forest))
        left = [task for task in tasks if task.id not in taken]
        if not missing or not left:
            break
        more = choose_tasks(left, min(missing, len(left)), seed=derive(recipe.seed, iteration, "again", again), iteration=1)
        try:
            join(forest, await executor.grow(more, recipe.growth, seed=recipe.seed, iteration=iteration))
        except EnvironmentFailure as error:  # in all of a few further tasks; the earlier trees can still be trained on
            forest.failures.append(str(error))
            forest.spent.failed += len(more)
        taken |= {task.id for task in more}
    return forest


def join(forest: Forest, more: Forest) -> None:
    """Add the trees of another forest, with their cost and failures, to a forest."""
    for tree in more:
        tree.forks = [replace(fork, tree=len(forest)) for fork in tree.forks]
        forest.trees.append(tree)
    forest.spent += more.spent
    forest.failures += more.failures
