# pyright: standard
"""Checkpoints: a model folder that `transformers` loads by itself, and beside it what training needs to go on.

Invariants
----------
* A checkpoint is there whole or not at all.
* Going on from one gives the same numbers as never having stopped: weights, optimiser, random states and the cursor
  (the number of finished iterations) are all in it.
* The newest few are kept, and the best on the development slice.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spark_rl.errors import StorageError
from spark_rl.files import atomic_directory, write_json

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["best", "latest", "load_training", "prune", "record_best", "save"]

TRAINING = "training.pt"
BEST = "best.json"


def save(folder: Path, iteration: int, model: Any, tokenizer: Any, optimizer: Optimizer) -> Path:
    """Write the checkpoint after `iteration` finished iterations."""
    path = folder / f"{iteration:06d}"
    with atomic_directory(path) as work:
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        version, keys, position, has_gauss, cached = np.random.get_state()  # what libraries draw from
        state = {
            "iteration": iteration,
            "optimizer": optimizer.state_dict(),
            "torch": torch.get_rng_state(),
            "python": list(random.getstate()[1]),
            "numpy": [version, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        }
        torch.save(state, work / TRAINING)
    return path


def load_training(path: Path, optimizer: Optimizer) -> int:
    """Restore optimiser and random states; returns the number of finished iterations.

    Raises:
        StorageError: the checkpoint cannot be read.
    """
    try:
        state = torch.load(path / TRAINING, weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError) as error:
        raise StorageError(f"checkpoint {path} cannot be read ({error}); delete it to use the one before") from error
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["torch"])
    random.setstate((3, tuple(state["python"]), None))
    version, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((version, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    return int(state["iteration"])


def latest(folder: Path) -> Path | None:
    """The newest numbered checkpoint."""
    numbered = _numbered(folder)
    return numbered[-1] if numbered else None


def record_best(folder: Path, iteration: int, success: float) -> bool:
    """Note the checkpoint of an iteration as the best so far, if it is; ties keep the earlier one."""
    known = best(folder)
    if known is not None and known["success"] >= success:
        return False
    write_json(folder / BEST, {"iteration": iteration, "success": success})
    return True


def best(folder: Path) -> dict[str, Any] | None:
    """`iteration` and development `success` of the best checkpoint."""
    file = folder / BEST
    return json.loads(file.read_text()) if file.exists() else None


def prune(folder: Path, keep: int) -> None:
    """Delete all numbered checkpoints but the newest `keep` (at least one) and the best."""
    top = best(folder)
    for path in _numbered(folder)[: -max(keep, 1)]:
        if top is None or int(path.name) != top["iteration"]:
            shutil.rmtree(path)


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if (path / TRAINING).exists())
