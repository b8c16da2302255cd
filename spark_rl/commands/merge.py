"""`spark-rl merge`: write the model of a run into its own folder, with adapters merged and a model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spark_rl.commands.base import Call, hush
from spark_rl.errors import UsageError

__all__ = ["merge"]


@dataclass(frozen=True)
class _Merge:
    """Write the model of a run into a folder that transformers can load: full weights, tokenizer, model card."""

    out: Path | None = None
    """Folder to make (required)."""
    checkpoint: str = "last"
    """last, best, cold-start, or the number of an iteration."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the weights; auto is the run's. bfloat16 loses small changes, and the command prints the kept share."""


def merge(call: Call) -> int:
    """Load the model on the CPU, merge its adapters, and write it; the folder appears whole or not at all."""
    name, call = call.positional("a run directory")
    options = call.options(_Merge())
    if options.out is None:
        raise UsageError(f"{call.prog} needs --out DIR")
    if options.out.exists():
        raise UsageError(f"{options.out} exists already: give another --out, or delete it")
    run = call.open_run(name)
    from spark_rl.common.files import write_bytes
    from spark_rl.models import adapters
    from spark_rl.models.load import load_model, load_tokenizer, model_directory
    from spark_rl.report.model_card import card
    from spark_rl.runs.checkpoints import model_folder

    hush()
    folder = Path(model_folder(name, options.checkpoint))
    dtype = run.recipe.weights.dtype if options.dtype == "auto" else options.dtype
    with call.watching() as watcher:
        watcher.phase("merge")
        model, tokenizer = load_model(folder, device="cpu", dtype=dtype), load_tokenizer(folder)
        kept = adapters.merge(model) if adapters.present(model) else None
        precision = str(model.dtype).removeprefix("torch.")
        text = card(
            run.recipe,
            checkpoint=folder.name,
            evaluations=run.evaluations(),
            precision=precision,
            kept=kept,
            preferences=run.preferences,
        )
        with model_directory(options.out, model, tokenizer) as work:
            write_bytes(work / "README.md", text.encode())
    size = sum(file.stat().st_size for file in options.out.iterdir())
    print(f"{options.out}: {folder.name} of {name}, {precision}, {size / 1e6:.1f} MB")
    if kept is not None:
        remedy = "" if kept > 0.95 else "; --dtype float32 keeps all of it"
        print(f"{kept:.1%} of the adapters' change is kept in this precision{remedy}")
    return 0
