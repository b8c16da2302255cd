"""Exploration-based trajectory optimisation (ETO, arXiv 2403.02502): a cold-started policy learns from its own failures.

In an iteration, the policy plays training tasks by the normal rollout. Each failure is paired with a success of the same
task, and DPO (`dpo`) makes the success more likely than the failure; the reference policy is the one that played.

Invariants
----------
* The result is a run directory. Checkpoint `cold-start` is the policy before, and checkpoint k the policy after iteration k,
  as a whole model. The directory holds every forest, every file of pairs, and a row of metrics for each iteration.
* `improve` runs the iterations of a run that are not finished. An interrupted iteration is repeated from the same checkpoint
  and seeds, and gives the same numbers.
* Only tasks in the training split of the run's level are used for training.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from spark_rl.branching.chains import Chains
from spark_rl.common.files import atomic_directory
from spark_rl.common.ranks import ALONE
from spark_rl.common.seeding import derive
from spark_rl.config.codec import current, encode
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Encoder, Executor, Growth, LanguageModel, ModelSource, Ranks, Tokenizer, Watcher
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
from spark_rl.runs.run import Follower, Run
from spark_rl.types import Forest, Spent, Task, TreeShape

__all__ = ["begin", "improve", "pairs_file"]

SETTINGS = "eto"
"""Name of the entry in a run's settings that holds the settings of this module."""


def pairs_file(run: Run, iteration: int) -> Path:
    """The file with the pairs of an iteration."""
    return run.directory / "pairs" / f"{iteration:06d}.jsonl"


def begin(directory: Path, source: Run, recipe: Recipe, settings: Preferences, probe: int) -> Run:
    """A new run, or the unfinished run in a directory.

    Args:
        directory: the run directory.
        source: the cold-started run whose policy is the start.
        recipe: the run's recipe: the source's recipe, except for settings that only playing and training need.
        settings: settings of preference learning.
        probe: number of development tasks that are played after each iteration.

    Raises:
        UsageError: the source has no cold start, or the directory holds something else.
    """
    start = Path(checkpoints.model_folder(source.directory, "cold-start"))
    wanted = {SETTINGS: {"from": str(source.directory), "probe": probe, "preferences": encode(settings)}}
    if (directory / "recipe.json").exists():
        run = Run.open(directory, foreign=lambda _: True)  # the source's classes, which the user has allowed
        if current(run.settings.get(SETTINGS)) != wanted[SETTINGS] or run.recipe != recipe:
            raise UsageError(f"{directory} holds a run with other settings: give another --out, or delete it")
        return run
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} holds something other than a run: give another --out")
    with atomic_directory(directory) as work:
        run = Run.create(work, recipe)
        run.save_settings(**wanted)
        shutil.copytree(start, run.checkpoints / "cold-start")
        if source.demonstrations.exists():
            shutil.copy(source.demonstrations, run.directory)
    return Run(directory, recipe, run.settings)


async def improve(run: Run, settings: Preferences, probe: int, watcher: Watcher, ranks: Ranks = ALONE) -> None:
    """Run all iterations that are not finished.

    Args:
        run: a run from `begin`.
        settings: settings of preference learning.
        probe: number of development tasks that are played after each iteration; 0 for none.
        watcher: receives reports of progress.
        ranks: the processes that play and learn together; each of them calls this function. The first alone writes.

    Raises:
        UsageError: no task can give a pair.
        SparkError: another error that the user can correct.
    """
    run = Follower.of(run) if ranks.rank else run
    set_threads(run, watcher, ranks)
    demonstrations = load(run.demonstrations) if run.demonstrations.exists() else []
    by_task = {each.tree.task.id: each for each in demonstrations if each.won}
    demonstrated = by_task if settings.winner == "demonstrated" else None
    tasks = _playable(run, demonstrated)
    path = checkpoints.latest(run.checkpoints)
    done = checkpoints.finished(path) if path else 0
    run.rewind(done)
    for iteration in range(done + 1, settings.iterations + 1):
        started = time.perf_counter()
        before = checkpoints.latest(run.checkpoints) or run.checkpoints / "cold-start"
        weights = run.recipe.weights
        model, tokenizer = load_model(before, device=weights.device, dtype=weights.dtype), load_tokenizer(before)
        source = ModelSource(loaded=(model, tokenizer))
        async with open_executor(run.recipe.engine, run.recipe.env, source, ranks=ranks) as executor:
            chosen = choose_tasks(tasks, settings.tasks or len(tasks), seed=run.recipe.seed, iteration=iteration)
            forest = await _play(executor, chosen, run.recipe, settings, iteration, watcher)
            run.save_forest(forest)
            pairs = _pairs(run, forest, executor.encoder, demonstrated)
            if not ranks.rank:
                save_pairs(pairs, pairs_file(run, iteration), run.recipe.prompt)
            row = {"iteration": float(iteration), **summarise(forest, settings.episodes)}
            row |= _learn(run, model, tokenizer, pairs, settings, iteration, watcher, ranks)
            await executor.load_weights(iteration, model.state_dict())
            row |= await _probe(executor, run.recipe, probe, iteration, watcher)
        run.log(row | {"seconds": time.perf_counter() - started})
        if not ranks.rank:
            checkpoints.save(run.checkpoints, iteration, model, tokenizer, None, success=row.get("dev_success"))
            checkpoints.prune(run.checkpoints, run.recipe.keep.checkpoints)
        ranks.gather(None)  # the next iteration starts from the checkpoint
        watcher.phase("eto", settings.iterations, iteration - 1)
        watcher.iteration(row)


def _playable(run: Run, demonstrated: Mapping[str, Demonstration] | None) -> list[Task]:
    """The training tasks whose failures can be paired with a success."""
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
    """A tree without forks for each task; as many tasks are played at a time as in an evaluation."""
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
    """The pairs of a forest. Demonstrations get token ids, with the policy's own tokenizer and prompts."""
    recipe = run.recipe
    author = f"{recipe.name}, iteration {forest.iteration - 1}"
    come_from = origin(recipe.env, recipe.level, "played", author, prompt_version(recipe.prompt))
    pairs = pair_up(forest, come_from, demonstrated)
    if demonstrated is None or encoder is None:
        return pairs
    tokenized = {
        pair.won.tree.task.id: replace(pair.won, tree=tokenize(pair.won.tree, recipe.prompt, encoder)) for pair in pairs
    }
    return [replace(pair, won=tokenized[pair.won.tree.task.id]) for pair in pairs]


def _learn(
    run: Run,
    model: LanguageModel,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    settings: Preferences,
    iteration: int,
    watcher: Watcher,
    ranks: Ranks,
) -> dict[str, float]:
    """Train the model on the pairs, if there are any; returns metrics for the log."""
    if not pairs:
        watcher.note(f"iteration {iteration}: no failure can be paired with a success, so nothing is learnt")
        return {"pairs": 0.0, "trained": 0.0}
    recipe, started = run.recipe, time.perf_counter()
    watcher.phase(f"learn, iteration {iteration}")
    seed = derive(recipe.seed, iteration, "pairs") % 2**31
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]  untyped in torch
    stats = learn(
        model,
        tokenizer,
        pairs,
        settings,
        seed=seed,
        weights=recipe.weights,
        token_budget=recipe.optimizer.token_budget,
        advance=lambda step, total, loss: watcher.advance(step, total=total, loss=loss),
        ranks=ranks,
    )
    watcher.note(
        f"iteration {iteration}: {len(pairs)} pairs, loss {stats['loss']:.3f}, margin {stats['margin']:.2f}, "
        f"{stats['accuracy']:.0%} of the pairs ranked correctly after {stats['steps']:.0f} steps"
    )
    return {
        "pairs": float(len(pairs)),
        **{f"dpo_{name}": stats[name] for name in ("loss", "margin", "accuracy", "steps")},
        "trained": stats["tokens"],
        "seconds_update": time.perf_counter() - started,
    }


async def _probe(executor: Executor, recipe: Recipe, count: int, iteration: int, watcher: Watcher) -> dict[str, float]:
    """Success rate on development tasks, under the names that training uses in its rows."""
    if not count:
        return {}
    tasks = recipe.env.tasks(recipe.evaluation.dev_level, "dev")[:count]
    watcher.phase(f"probe, iteration {iteration}", len(tasks))
    return development(await measure(executor, recipe, tasks, watcher.advance))
