"""`spark-rl rollout`: grow a forest and save it, without training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spark_rl.commands.base import Call, holds_run, model_source, show
from spark_rl.common.running import run
from spark_rl.config.options import INLINE
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Demonstrates, Policy
from spark_rl.errors import UsageError
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.rollout.executors.in_process import InProcess, open_executor
from spark_rl.rollout.tasks import choose_tasks
from spark_rl.runs.run import Run
from spark_rl.types import Forest

__all__ = ["rollout"]


@dataclass(frozen=True)
class _Rollout:
    """Grow the trees of one iteration of a recipe, without training."""

    out: Path
    """Directory to make; `spark-rl show` and `load_forest` read it."""
    recipe: Recipe = field(metadata=INLINE)
    tasks: int = 8
    """Number of trees."""
    iteration: int = 1
    """Iteration whose tasks and random samples are used."""
    policy: Literal["auto", "model", "expert", "random"] = "auto"
    """Who acts: the recipe's model (a directory, a run or a hub name: --model), the world's expert, or random
    actions. `auto` takes the model if the recipe names one, else the expert, else random actions."""


def rollout(call: Call) -> int:
    """Grow one forest, save it and print a summary."""
    name, call = call.positional("a recipe", RECIPES)
    recipe, call = call.algorithm(load_recipe(name))
    options = call.options(_Rollout(Path("runs") / f"{recipe.name}-rollout", recipe))
    if options.tasks < 1 or options.iteration < 1:
        raise UsageError(f"tasks is {options.tasks} and iteration {options.iteration}: both must be at least 1")
    if holds_run(options.out):
        raise UsageError(f"{options.out} already holds a run: give another --out")
    forest = run(_grow(options, call))
    Run.create(options.out, options.recipe).save_forest(forest)

    from spark_rl.report.terminal import choose_tree, draw_tree, forest_summary, leaf_advantages

    tree = forest.trees[choose_tree(forest)]
    show(forest_summary(forest), "", draw_tree(tree, leaf_advantages(tree, options.recipe)), "", f"Kept in {options.out}")
    return 0


async def _grow(options: _Rollout, call: Call) -> Forest:
    recipe = options.recipe
    tasks = choose_tasks(
        recipe.env.tasks(recipe.level, "train"), options.tasks, seed=recipe.seed, iteration=options.iteration
    )
    with call.watching() as watcher:
        if (policy := _scripted(options)) is not None:
            watcher.phase(f"grow {len(tasks)} trees without a model")
            executor = InProcess(recipe.env, policy)
            return await executor.grow(tasks, recipe.growth, seed=recipe.seed, iteration=options.iteration)
        watcher.phase("load the model")
        if not isinstance(recipe.model, str):
            raise UsageError(
                f"recipe {recipe.name} starts from scratch: give --model DIRECTORY (a run or a model), or --policy expert"
            )
        source = model_source(recipe.model, threads=recipe.threads)
        async with open_executor(recipe.engine, recipe.env, source) as executor:
            return await executor.grow(tasks, recipe.growth, seed=recipe.seed, iteration=options.iteration)


def _scripted(options: _Rollout) -> Policy | None:
    """The expert or random policy, or None where a model acts."""
    from spark_rl.policies.four_modes import in_modes
    from spark_rl.policies.scripted import RandomActions

    recipe, choice = options.recipe, options.policy
    world = recipe.env
    if choice == "auto":
        choice = "model" if isinstance(recipe.model, str) else "expert" if isinstance(world, Demonstrates) else "random"
    if choice == "expert":
        if not isinstance(world, Demonstrates):
            raise UsageError(f"the world {recipe.env.name} has no expert; use --policy random or --model DIRECTORY")
        return in_modes(world.expert(recipe.cold_start.tags), recipe.prompt, recipe.env)
    return in_modes(RandomActions(), recipe.prompt, recipe.env) if choice == "random" else None
