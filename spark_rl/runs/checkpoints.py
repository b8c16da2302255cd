# pyright: standard
"""Checkpoints: a model folder that `transformers` loads by itself, and beside it what training needs to go on.

Where adapters are trained, the folder holds them alone; their model is the cold start.

Invariants
----------
* A checkpoint is there whole or not at all; one that cannot be written leaves the earlier ones as they were.
* Going on from one gives the same numbers as never having stopped: weights, optimiser, random states and the cursor
  (the number of finished iterations) are all in it.
* The newest few are kept, and the best on the development slice. Each checkpoint holds its own result there, so which
  one is best is read off those that exist.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spark_rl.common.files import write_json
from spark_rl.errors import StorageError, UsageError
from spark_rl.models.load import model_directory

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["best", "finished", "latest", "load_training", "model_folder", "prune", "save"]

TRAINING = "training.pt"
SUCCESS = "development.json"


def save(
    folder: Path,
    iteration: int,
    model: Any,
    tokenizer: Any,
    optimizer: Optimizer | None,
    *,
    success: float | None = None,
) -> Path:
    """Write the checkpoint after `iteration` finished iterations.

    Args:
        folder: of all checkpoints.
        iteration: how many iterations are finished.
        model: a transformers model.
        tokenizer: its tokenizer.
        optimizer: its state goes along, and so do those of the random generators; None where each iteration has its own.
        success: on the development slice, where it was measured.

    Raises:
        StorageError: it cannot be written; nothing of it is left.
    """
    path = folder / f"{iteration:06d}"
    with model_directory(path, model, tokenizer) as work:
        state = {} if optimizer is None else optimizer.state_dict()
        torch.save({"iteration": iteration, "optimizer": state, **_random_states()}, work / TRAINING)
        if success is not None:
            write_json(work / SUCCESS, {"success": success})
    return path


def load_training(path: Path, optimizer: Optimizer) -> int:
    """Restore optimiser and random states; returns the number of finished iterations.

    Raises:
        StorageError: the checkpoint cannot be read.
    """
    try:
        state = torch.load(path / TRAINING, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, UnpicklingError) as error:
        raise StorageError(f"checkpoint {path} cannot be read; delete it to continue from the one before") from error
    # Its settings are the recipe's, which may have been mended since; what it has learnt is the checkpoint's.
    optimizer.load_state_dict({**state["optimizer"], "param_groups": optimizer.state_dict()["param_groups"]})
    _set_random_states(state)
    return int(state["iteration"])


def finished(path: Path) -> int:
    """How many iterations were finished at a numbered checkpoint."""
    return int(path.name)


def latest(folder: Path) -> Path | None:
    """The newest numbered checkpoint."""
    numbered = _numbered(folder)
    return numbered[-1] if numbered else None


def best(folder: Path) -> tuple[Path, float] | None:
    """The checkpoint with the highest success on the development slice, the earliest of equals, and that success."""
    measured = [
        (path, json.loads((path / SUCCESS).read_text())["success"])
        for path in _numbered(folder)
        if (path / SUCCESS).exists()
    ]
    return max(measured, key=lambda pair: pair[1], default=None)


def prune(folder: Path, keep: int) -> None:
    """Delete all numbered checkpoints but the newest `keep` (at least one) and the best."""
    top = best(folder)
    for path in _numbered(folder)[: -max(keep, 1)]:
        if top is None or path != top[0]:
            shutil.rmtree(path)


def model_folder(name: str | Path, checkpoint: str = "last") -> str | Path:
    """Where the model of a run directory is; whatever else may name a model (a model directory, a hub name) unchanged.

    Args:
        name: what a person typed.
        checkpoint: of a run: `last` (the cold start while there is no other), `best`, `cold-start`, or the number of an
            iteration.

    Raises:
        UsageError: the run has no such checkpoint.
    """
    if not (Path(name) / "recipe.json").is_file():
        return name
    folder = Path(name) / "checkpoints"
    if checkpoint == "last":
        path = latest(folder) or folder / "cold-start"
    elif checkpoint == "best":
        path = top[0] if (top := best(folder)) else folder / "best"
    else:
        path = folder / (f"{int(checkpoint):06d}" if checkpoint.isdecimal() else checkpoint)
    if not path.is_dir():
        there = ", ".join(sorted(found.name for found in folder.glob("[!.]*")))
        raise UsageError(f'{name} holds no checkpoint "{checkpoint}"; there {f"are {there}" if there else "is none yet"}')
    return path


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if (path / TRAINING).exists())


def _random_states() -> dict[str, Any]:
    """What libraries draw from: no sample of ours depends on it."""
    version, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "python": list(random.getstate()[1]),
        "numpy": [version, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
    }


def _set_random_states(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate((3, tuple(state["python"]), None))
    version, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((version, keys.numpy().astype(np.uint32), position, has_gauss, cached))
