# pyright: standard
"""Exploration-based trajectory optimisation (ETO, arXiv 2403.02502): a cold-started policy learns from its own failures.

An iteration lets the policy play training tasks by the normal rollout, pairs each failure with a success of the same task,
and makes the success more likely than the failure by DPO (`dpo`), held to the policy that played.

Invariants
----------
* What comes out is a run directory: checkpoint `cold-start` is the policy before, number k that after iteration k, a whole
  model; every forest, every file of pairs and a row of metrics an iteration are kept.
* Calling `improve` on a run does what is not done yet, iteration by iteration: one that was stopped is played and learnt
  again, from the same checkpoint and seeds, to the same numbers.
* Nothing is learnt from tasks outside the training split of the run's level.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from spark_rl.branching.chains import Chains
from spark_rl.common.files import atomic_directory
from spark_rl.common.seeding import derive
from spark_rl.config.codec import current, encode
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Encoder, Executor, Growth, ModelSource, Watcher
from spark_rl.data.demonstrations import tokenize
from spark_rl.data.format import Demonstration, load, origin, prompt_version
from spark_rl.data.pairs import Pair, pair_up, save_pairs
from spark_rl.errors import UsageError
from spark_rl.evaluation.play import measure
from spark_rl.evaluation.results import development
from spark_rl.learning.finetuning.dpo import learn
from spark_rl.learning.prepare import set_threads
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.objective.preferences import Preferences
from spark_rl.rollout.executors.in_process import open_executor
from spark_rl.rollout.metrics import summarise
from spark_rl.rollout.tasks import choose_tasks
from spark_rl.runs import checkpoints
from spark_rl.runs.run import Run
from spark_rl.types import Forest, Spent, Task, TreeShape

__all__ = ["begin", "improve", "pairs_file"]

SETTINGS = "eto"
"""Entry of a run's settings that holds how it was made."""


def pairs_file(run: Run, iteration: int) -> Path:
    """Where the pairs of an iteration are."""
    return run.directory / "pairs" / f"{iteration:06d}.jsonl"


def begin(directory: Path, source: Run, recipe: Recipe, settings: Preferences, probe: int) -> Run:
    """The run to make, new or as far as it has come.

    Args:
        directory: of the run.
        source: the cold-started run that it starts from.
        recipe: of the run; the source's, but for what only playing and learning need.
        settings: how it learns.
        probe: development tasks that are played after each iteration.

    Raises:
        UsageError: the source has no cold start, or the directory holds something else.
    """
    start = Path(checkpoints.model_folder(source.directory, "cold-start"))
    asked = {SETTINGS: {"from": str(source.directory), "probe": probe, "preferences": encode(settings)}}
    if (directory / "recipe.json").exists():
        run = Run.open(directory, foreign=lambda _: True)  # the source's classes, which were allowed
        if current(run.settings.get(SETTINGS)) != asked[SETTINGS] or run.recipe != recipe:
            raise UsageError(f"{directory} holds a run with other settings: give another --out, or delete it")
        return run
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} holds something else than a run: give another --out")
    with atomic_directory(directory) as work:
        run = Run.create(work, recipe)
        run.save_settings(**asked)
        shutil.copytree(start, run.checkpoints / "cold-start")
        if source.demonstrations.exists():
            shutil.copy(source.demonstrations, run.demonstrations)
    return Run(directory, recipe, run.settings)


async def improve(run: Run, settings: Preferences, probe: int, watcher: Watcher) -> None:
    """All iterations that are not done yet.

    Args:
        run: made by `begin`.
        settings: how it learns.
        probe: development tasks that are played after each iteration; 0 none.
        watcher: told how it goes.

    Raises:
        UsageError: no task can make a pair.
        SparkError: whatever a user can mend.
    """
    set_threads(run, watcher)
    shown = [shown for shown in load(run.demonstrations) if shown.won] if run.demonstrations.exists() else []
    demonstrated = {each.tree.task.id: each for each in shown} if settings.winner == "demonstrated" else None
    tasks = _playable(run, demonstrated)
    path = checkpoints.latest(run.checkpoints)
    done = checkpoints.finished(path) if path else 0
    run.rewind(done)
    for iteration in range(done + 1, settings.iterations + 1):
        started = time.perf_counter()
        before = checkpoints.latest(run.checkpoints) or run.checkpoints / "cold-start"
        weights = run.recipe.weights
        model, tokenizer = load_model(before, device=weights.device, dtype=weights.dtype), load_tokenizer(before)
        async with open_executor(run.recipe.engine, run.recipe.env, ModelSource(loaded=(model, tokenizer))) as executor:
            chosen = choose_tasks(tasks, settings.tasks or len(tasks), seed=run.recipe.seed, iteration=iteration)
            forest = await _play(executor, chosen, run.recipe, settings, iteration, watcher)
            run.save_forest(forest)
            pairs = _pairs(run, forest, executor.encoder, demonstrated)
            save_pairs(pairs, pairs_file(run, iteration), run.recipe.prompt)
            row = {"iteration": float(iteration), **summarise(forest, settings.episodes)}
            row |= _learn(run, model, tokenizer, pairs, settings, iteration, watcher)
            await executor.load_weights(iteration, model.state_dict())
            row |= await _probe(executor, run.recipe, probe, iteration, watcher)
        run.log(row | {"seconds": time.perf_counter() - started})
        checkpoints.save(run.checkpoints, iteration, model, tokenizer, None, success=row.get("dev_success"))
        checkpoints.prune(run.checkpoints, run.recipe.keep.checkpoints)
        watcher.phase("eto", settings.iterations, iteration - 1)
        watcher.iteration(row)


def _playable(run: Run, demonstrated: Mapping[str, Demonstration] | None) -> list[Task]:
    """Training tasks whose failures can be paired."""
    tasks = run.recipe.env.tasks(run.recipe.level, "train")
    if demonstrated is None:
        return list(tasks)
    chosen = [task for task in tasks if task.id in demonstrated]
    if not chosen:
        raise UsageError(
            f"{run.directory} holds no won demonstration of a training task to pair failures with: give --winner own "
            "--episodes 8, or begin with a run that has a cold start"
        )
    return chosen


async def _play(
    executor: Executor, tasks: Sequence[Task], recipe: Recipe, settings: Preferences, iteration: int, watcher: Watcher
) -> Forest:
    """A tree a task, without forks, as many at a time as an evaluation plays."""
    shape = TreeShape(budget=settings.episodes, roots=settings.episodes, horizon=recipe.tree.horizon)
    growth = Growth(shape, Chains(), recipe.prompt, recipe.sampling)
    forest = Forest([], iteration, recipe.seed, Spent())
    watcher.phase(f"play, iteration {iteration}", len(tasks))
    for first in range(0, len(tasks), recipe.evaluation.batch):
        part = tasks[first : first + recipe.evaluation.batch]
        grown = await executor.grow(part, growth, seed=derive(recipe.seed, "eto"), iteration=iteration)
        forest.trees += grown.trees
        forest.failures += grown.failures
        forest.spent += grown.spent
        watcher.advance(first + len(part))
    return forest


def _pairs(
    run: Run, forest: Forest, encoder: Encoder | None, demonstrated: Mapping[str, Demonstration] | None
) -> list[Pair]:
    """The pairs of a forest; demonstrations get the token ids that the policy would read and say."""
    recipe = run.recipe
    author = f"{recipe.name}, iteration {forest.iteration - 1}"
    come_from = origin(recipe.env, recipe.level, "played", author, prompt_version(recipe.prompt))
    pairs = pair_up(forest, come_from, demonstrated)
    if demonstrated is None or encoder is None:
        return pairs
    encode_tree = {
        pair.won.tree.task.id: replace(pair.won, tree=tokenize(pair.won.tree, recipe.prompt, encoder)) for pair in pairs
    }
    return [replace(pair, won=encode_tree[pair.won.tree.task.id]) for pair in pairs]


def _learn(
    run: Run, model: Any, tokenizer: Any, pairs: Sequence[Pair], settings: Preferences, iteration: int, watcher: Watcher
) -> dict[str, float]:
    """Learn from the pairs, if there are any; figures for the log."""
    if not pairs:
        watcher.note(f"iteration {iteration}: no failure has a success to be paired with; nothing is learnt")
        return {"pairs": 0.0, "trained": 0.0}
    recipe, started = run.recipe, time.perf_counter()
    watcher.phase(f"learn, iteration {iteration}")
    seed = derive(recipe.seed, iteration, "pairs") % 2**31
    torch.manual_seed(seed)
    stats = learn(
        model,
        tokenizer,
        pairs,
        settings,
        seed=seed,
        weights=recipe.weights,
        token_budget=recipe.optimizer.token_budget,
        advance=lambda step, total, loss: watcher.advance(step, total=total, loss=loss),
    )
    watcher.note(
        f"iteration {iteration}: {len(pairs)} pairs, loss {stats['loss']:.3f}, margin {stats['margin']:.2f}, "
        f"{stats['accuracy']:.0%} of the pairs told apart after {stats['steps']:.0f} steps"
    )
    return {
        "pairs": float(len(pairs)),
        **{f"dpo_{name}": stats[name] for name in ("loss", "margin", "accuracy", "steps")},
        "trained": stats["tokens"],
        "seconds_update": time.perf_counter() - started,
    }


async def _probe(executor: Executor, recipe: Recipe, count: int, iteration: int, watcher: Watcher) -> dict[str, float]:
    """Success on development tasks, as the rows of training have it."""
    if not count:
        return {}
    tasks = recipe.env.tasks(recipe.evaluation.dev_level, "dev")[:count]
    watcher.phase(f"probe, iteration {iteration}", len(tasks))
    return development(await measure(executor, recipe, tasks, watcher.advance))
