"""`spark-rl eval`: play every task of a level exactly once, with a run's model or any other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spark_rl.branching.chains import Chains
from spark_rl.commands.base import Call, holds_run, load_weights
from spark_rl.data.leaks import refuse_held_out
from spark_rl.environments.base import World
from spark_rl.errors import UsageError
from spark_rl.files import write_json
from spark_rl.growth import Growth, Sampling, TreeShape
from spark_rl.options import take
from spark_rl.progress import Watcher
from spark_rl.prompting import Prompt
from spark_rl.recipe import Recipe
from spark_rl.recipes import load_recipe
from spark_rl.seeding import derive
from spark_rl.types import Level, Split

__all__ = ["evaluate"]


@dataclass(frozen=True)
class _Evaluate:
    """Play every task of each level exactly once and report success with its fraction and interval."""

    level: tuple[Level, ...]
    """Which levels."""
    temperature: float
    """0 means greedy."""
    env: World
    prompt: Prompt
    horizon: int
    """Most steps of a trajectory."""
    max_tokens: int
    """Most tokens of a completion."""
    split: Split = "test"
    """Which tasks of the level."""
    tasks: int = 0
    """Only the first so many tasks of each level; 0 takes all."""
    checkpoint: str = "last"
    """Of a run: last, best, cold-start, or the number of an iteration."""
    seed: int = 0
    """Of the samples."""
    batch: int = 64
    """Tasks played at once."""
    cache_gb: float = 2.0
    """Most memory of the keys and values kept between steps."""
    threads: int = 0
    """Threads of a matrix product; 0 measures."""
    out: Path | None = None
    """JSON file to write as well."""


def evaluate(call: Call) -> int:
    """Print a table, a row a level; write the numbers as JSON when asked to."""
    from spark_rl.evaluate import averages, by_kind, markdown

    recipe_name, argv = take(call.argv, "--recipe")
    name, call = replace(call, argv=argv).positional("a run directory, a model directory or a hub name")
    recipe, threads = _recipe(call, name, recipe_name)
    options = call.options(
        _Evaluate(
            level=recipe.evaluation.levels,
            temperature=recipe.evaluation.temperature,
            env=recipe.env,
            prompt=recipe.prompt,
            horizon=recipe.tree.horizon,
            max_tokens=recipe.sampling.max_tokens,
            seed=recipe.seed,
            batch=recipe.evaluation.batch,
            cache_gb=recipe.cache_gb,
            threads=threads,
        )
    )
    if holds_run(Path(name)) and options.split != "train":
        refuse_held_out(call.open_run(name), options.level, options.env)
    with call.watching() as watcher:
        results = _play(name, options, watcher)
    print(markdown(results))
    for table in (averages(results), by_kind(results)):
        if table:
            print(f"\n{table}")
    if options.out:
        write_json(options.out, results)
    return 0


def _recipe(call: Call, name: str, recipe_name: str | None) -> tuple[Recipe, int]:
    """What says how to play, and the thread count: a named recipe, else the run's own."""
    if recipe_name is not None:
        return load_recipe(recipe_name), 0
    if not holds_run(Path(name)):
        raise UsageError(f'"{name}" is no run directory, so what to play is not known: add --recipe NAME')
    run = call.open_run(name)
    return run.recipe, run.recipe.threads or run.settings.get("threads", 0)


def _play(name: str, options: _Evaluate, watcher: Watcher) -> Mapping[str, Any]:
    tasks = {level: options.env.tasks(level, options.split)[: options.tasks or None] for level in options.level}
    watcher.phase("load the model")
    from spark_rl.evaluate import evaluate as play
    from spark_rl.executor import InProcess

    model, tokenizer = load_weights(name, options.checkpoint, threads=options.threads)
    executor = InProcess(model, tokenizer, options.env, cache_gb=options.cache_gb)
    shape = TreeShape(budget=1, roots=1, horizon=options.horizon)
    growth = Growth(shape, Chains(), options.prompt, Sampling(options.temperature, options.max_tokens))
    results: dict[str, Any] = {}
    for level in options.level:
        watcher.phase(f"evaluate {level}", len(tasks[level]))
        results[level] = asyncio.run(
            play(
                executor,
                tasks[level],
                growth,
                temperature=options.temperature,
                seed=derive(options.seed, "evaluation"),
                batch=options.batch,
                advance=watcher.advance,
            )
        )
    return results
