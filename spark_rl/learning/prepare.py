"""From a recipe to a cold-started model: the work before the first forest.

Invariant: each result is saved in the run directory, and is computed only if it is missing. So a second preparation of a
run, or one after an interruption, repeats no finished work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from spark_rl.common.ranks import ALONE
from spark_rl.common.seeding import derive
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import LanguageModel, Ranks, Tokenizer, Watcher
from spark_rl.data import demonstrations
from spark_rl.data.format import Demonstration, load, save
from spark_rl.data.leaks import refuse_leaks
from spark_rl.errors import UsageError
from spark_rl.models.load import load_model, load_tokenizer, save_pretrained_atomically
from spark_rl.models.new import new_model
from spark_rl.models.scratch import ScratchModel
from spark_rl.models.threads import choose_threads
from spark_rl.models.tokenizer import learn_tokenizer
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.runs.checkpoints import model_folder
from spark_rl.runs.run import Run

__all__ = ["demonstrate", "prepare", "set_threads"]


def set_threads(run: Run, watcher: Watcher, ranks: Ranks = ALONE) -> None:
    """Set the number of threads: the recipe's, else that of the run's first start, else one measured now and saved.

    Several ranks take an equal share of the cores each, unless the recipe says otherwise.
    """
    if ranks.count > 1:
        threads = run.recipe.threads or max(1, len(os.sched_getaffinity(0)) // ranks.count)
        torch.set_num_threads(threads)
        watcher.note(f"ranks: {ranks.count}, threads of each: {threads}")
        return
    threads = run.recipe.threads or run.settings.get("threads") or choose_threads()
    if run.settings.get("threads") != threads:
        run.save_settings(threads=threads)
    torch.set_num_threads(threads)
    watcher.note(f"threads: {threads}")


async def prepare(run: Run, watcher: Watcher, ranks: Ranks = ALONE) -> tuple[PreTrainedModel, Tokenizer]:
    """The cold-started model and its tokenizer. The first call trains the model; later calls load it.

    Several ranks call it together. The first makes the demonstrations, all of them train, and the first saves the model.
    """
    folder = run.checkpoints / "cold-start"
    if not ranks.gather(folder.exists())[0]:
        torch.manual_seed(derive(run.recipe.seed, "cold start"))  # pyright: ignore[reportUnknownMemberType]  untyped in torch
        trees = await _demonstrations(run, watcher, ranks) if run.recipe.cold_start.demonstrations else []
        model, tokenizer = _base(run.recipe, trees, watcher)
        if trees:
            _cold_start(run.recipe, model, tokenizer, trees, watcher, ranks)
        if not ranks.rank:
            save_pretrained_atomically(model, tokenizer, folder)
        ranks.gather(None)  # the others wait until it is saved
    weights = run.recipe.weights
    return load_model(folder, device=weights.device, dtype=weights.dtype), load_tokenizer(folder)


async def _demonstrations(run: Run, watcher: Watcher, ranks: Ranks) -> list[Demonstration]:
    recipe = run.recipe
    if not ranks.rank and not run.demonstrations.exists():
        if recipe.cold_start.data:
            trees = _read(recipe)
        else:
            count = recipe.cold_start.demonstrations
            watcher.phase("demonstrations", count)
            trees = await demonstrate(recipe, count, processes=recipe.processes, advance=watcher.advance)
        save(trees, run.demonstrations, recipe.prompt)
    ranks.gather(None)
    return load(run.demonstrations)


async def demonstrate(
    recipe: Recipe, count: int, *, processes: int, advance: Callable[[int], None] = lambda _: None
) -> list[Demonstration]:
    """So many won demonstrations of the world's expert, as the recipe wants them (`data.demonstrations.collect`)."""
    return await demonstrations.collect(
        recipe.env,
        count,
        level=recipe.level,
        horizon=recipe.tree.horizon,
        prompt=recipe.prompt,
        seed=recipe.seed,
        shown=recipe.cold_start.tasks,
        tags=recipe.cold_start.tags,
        slips=recipe.cold_start.slips,
        processes=processes,
        advance=advance,
    )


def _read(recipe: Recipe) -> list[Demonstration]:
    """The first won demonstrations of the file `cold_start.data`.

    Raises:
        UsageError: the file has too few demonstrations, or one of them has a task that the recipe may not train on, or uses
            other reasoning modes than the recipe.
    """
    file, count = recipe.cold_start.data, recipe.cold_start.demonstrations
    if not Path(file).exists():
        raise UsageError(f"cold_start.data names {file}, which does not exist: write it with `spark-rl demos --out {file}`")
    trees = [demonstration for demonstration in load(Path(file)) if demonstration.won][:count]
    if len(trees) < count:
        raise UsageError(
            f"cold_start.data {file} holds {len(trees)} won demonstrations, fewer than the {count} of "
            "cold_start.demonstrations"
        )
    refuse_leaks(trees, recipe.env, recipe.level, f"cold_start.data {file}")
    nodes = (node for demonstration in trees for node in demonstration.tree.nodes)
    if any(node.well_formed and not recipe.prompt.parse(node.text).well_formed for node in nodes):
        raise UsageError(
            f"cold_start.data {file} answers in other modes than prompt.modes {recipe.prompt.modes}: write it with "
            f"`spark-rl demos --prompt.modes {recipe.prompt.modes}`, or leave cold_start.data empty"
        )
    return trees


def _base(recipe: Recipe, trees: list[Demonstration], watcher: Watcher) -> tuple[LanguageModel, Tokenizer]:
    """The model before the cold start: the named model, or a new one with a tokenizer learnt from the demonstrations."""
    if not isinstance(recipe.model, ScratchModel):
        folder = model_folder(recipe.model)
        weights = recipe.weights
        return load_model(folder, device=weights.device, dtype=weights.dtype), load_tokenizer(folder)
    if not trees:
        raise UsageError("a model from scratch needs demonstrations: set cold_start.demonstrations, or give --model DIR")
    watcher.phase("tokenizer")
    tokenizer = learn_tokenizer(
        demonstrations.texts(trees, recipe.prompt),
        vocabulary=recipe.model.vocabulary,
        min_count=recipe.model.min_count,
        tags=recipe.prompt.tags,
    )
    model = new_model(tokenizer, recipe.model, seed=derive(recipe.seed, "weights"))
    size = sum(p.numel() for p in model.parameters())
    watcher.note(f"model from scratch: {size / 1e6:.2f} M parameters, {len(tokenizer)} tokens")
    return model, tokenizer


def _cold_start(
    recipe: Recipe,
    model: LanguageModel,
    tokenizer: Tokenizer,
    trees: list[Demonstration],
    watcher: Watcher,
    ranks: Ranks,
) -> None:
    from spark_rl.learning.finetuning.sft import cold_start

    encoder = ChatEncoder(tokenizer)
    tokenized = [replace(each, tree=demonstrations.tokenize(each.tree, recipe.prompt, encoder)) for each in trees]
    watcher.phase("cold start")
    stats = cold_start(
        model,
        tokenizer,
        tokenized,
        recipe.cold_start,
        seed=derive(recipe.seed, "rows") % 2**31,
        weights=recipe.weights,
        token_budget=recipe.optimizer.token_budget,
        advance=lambda step, total, loss: watcher.advance(step, total=total, loss=loss),
        tell=watcher.note,
        ranks=ranks,
    )
    watcher.note(f"cold start: loss {stats['loss']:.3f} after {stats['steps']:.0f} steps on {len(trees)} demonstrations")
