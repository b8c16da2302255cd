# pyright: standard
"""From a recipe to a cold-started model: what happens before the first forest.

Each product is kept in the run directory and made only when it is missing, so that preparing a run twice, or after it
was stopped, does nothing twice.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import torch

from spark_rl.checkpoint import model_folder
from spark_rl.data import demonstrations
from spark_rl.data.demonstrations import Demonstration
from spark_rl.errors import UsageError
from spark_rl.fresh import FreshModel
from spark_rl.model import learn_tokenizer, load_model, load_tokenizer, new_model, save_pretrained_atomically
from spark_rl.progress import Watcher
from spark_rl.prompting import Encoder
from spark_rl.recipe import Recipe
from spark_rl.run import Run
from spark_rl.seeding import derive
from spark_rl.threads import choose_threads

__all__ = ["prepare", "set_threads"]


def set_threads(run: Run, watcher: Watcher) -> None:
    """Use the thread count of the recipe, or of the run's first start, or measure it now and save it with the run."""
    threads = run.recipe.threads or run.settings.get("threads") or choose_threads()
    if run.settings.get("threads") != threads:
        run.save_settings(threads=threads)
    torch.set_num_threads(threads)
    watcher.note(f"threads: {threads}")


def prepare(run: Run, watcher: Watcher) -> tuple[Any, Any]:
    """The cold-started model and its tokenizer, made on the first call and loaded on later ones."""
    folder = run.checkpoints / "cold-start"
    if not folder.exists():
        torch.manual_seed(derive(run.recipe.seed, "cold start"))
        trees = _demonstrations(run, watcher) if run.recipe.cold_start.demonstrations else []
        model, tokenizer = _base(run.recipe, trees, watcher)
        if trees:
            _cold_start(run.recipe, model, tokenizer, trees, watcher)
        save_pretrained_atomically(model, tokenizer, folder)
    return load_model(folder), load_tokenizer(folder)


def _demonstrations(run: Run, watcher: Watcher) -> list[Demonstration]:
    recipe = run.recipe
    if not run.demonstrations.exists():
        watcher.phase("demonstrations", recipe.cold_start.demonstrations)
        trees = asyncio.run(
            demonstrations.collect(
                recipe.env,
                recipe.cold_start.demonstrations,
                level=recipe.level,
                horizon=recipe.tree.horizon,
                prompt=recipe.prompt,
                seed=recipe.seed,
                tags=recipe.cold_start.tags,
                slips=recipe.cold_start.slips,
                advance=watcher.advance,
            )
        )
        demonstrations.save(trees, run.demonstrations, recipe.prompt)
    return demonstrations.load(run.demonstrations)


def _base(recipe: Recipe, trees: list[Demonstration], watcher: Watcher) -> tuple[Any, Any]:
    """The model before the cold start: a named one, or one from nothing with a tokenizer learnt from the demonstrations."""
    if not isinstance(recipe.model, FreshModel):
        folder = model_folder(recipe.model)
        return load_model(folder), load_tokenizer(folder)
    if not trees:
        raise UsageError("a model from nothing needs demonstrations: set cold_start.demonstrations, or give --model DIR")
    watcher.phase("tokenizer")
    tokenizer = learn_tokenizer(
        demonstrations.texts(trees, recipe.prompt), vocabulary=recipe.model.vocabulary, min_count=recipe.model.min_count
    )
    model = new_model(tokenizer, recipe.model, seed=derive(recipe.seed, "weights"))
    size = sum(p.numel() for p in model.parameters())
    watcher.note(f"model from nothing: {size / 1e6:.2f} M parameters, {len(tokenizer)} tokens")
    return model, tokenizer


def _cold_start(recipe: Recipe, model: Any, tokenizer: Any, trees: list[Demonstration], watcher: Watcher) -> None:
    from spark_rl.sft import cold_start

    encoder = Encoder(tokenizer)
    tokenized = [replace(shown, tree=demonstrations.tokenize(shown.tree, recipe.prompt, encoder)) for shown in trees]
    watcher.phase("cold start")
    stats = cold_start(
        model,
        tokenizer,
        tokenized,
        recipe.cold_start,
        seed=derive(recipe.seed, "rows") % 2**31,
        advance=lambda step, total, loss: watcher.advance(step, total=total, loss=loss),
    )
    watcher.note(f"cold start: loss {stats['loss']:.3f} after {stats['steps']:.0f} steps on {len(trees)} demonstrations")
