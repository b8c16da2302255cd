"""Checkpoints: a model folder that `transformers` loads by itself, with the training state beside the weights.

Where adapters are trained, the folder holds the adapters alone; their base model is the cold start.

Invariants
----------
* A checkpoint exists whole or not at all. A checkpoint that cannot be written leaves the earlier ones unchanged.
* A run that resumes from a checkpoint gives the same numbers as an uninterrupted run. The checkpoint holds weights,
  optimiser, random states and the number of finished iterations.
* The newest few checkpoints and the best one on the development slice are never deleted. Each checkpoint holds its own
  success rate there, so the existing checkpoints alone say which one is best.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np
import torch

from spark_rl.common.files import write_json
from spark_rl.contracts import LanguageModel, Tokenizer
from spark_rl.errors import StorageError, UsageError
from spark_rl.models.load import model_directory
from spark_rl.models.pretrained import resolve

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["best", "finished", "latest", "load_training", "model_folder", "prune", "save"]

TRAINING = "training.pt"
SUCCESS = "development.json"


class _RandomStates(TypedDict):
    """States of the random generators, in types that `torch.load(weights_only=True)` reads."""

    torch: torch.Tensor
    python: list[int]
    numpy: list[object]


def save(
    folder: Path,
    iteration: int,
    model: LanguageModel,
    tokenizer: Tokenizer,
    optimizer: Optimizer | None,
    *,
    success: float | None = None,
) -> Path:
    """Write the checkpoint after `iteration` finished iterations.

    Args:
        folder: the folder of all checkpoints.
        iteration: how many iterations are finished.
        model: a transformers model.
        tokenizer: its tokenizer.
        optimizer: its state is saved too; None where each iteration has an optimiser of its own.
        success: success rate on the development slice, where it was measured.

    Raises:
        StorageError: the checkpoint cannot be written; nothing of it is left.
    """
    path = folder / f"{iteration:06d}"
    with model_directory(path, model, tokenizer) as work:
        state = {} if optimizer is None else optimizer.state_dict()
        torch.save({"iteration": iteration, "optimizer": state, **_random_states()}, work / TRAINING)
        if success is not None:
            write_json(work / SUCCESS, {"success": success})
    return path


def load_training(path: Path, optimizer: Optimizer) -> int:
    """Restore the optimiser and the random states; returns the number of finished iterations.

    Raises:
        StorageError: the checkpoint cannot be read.
    """
    try:
        state = torch.load(path / TRAINING, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, UnpicklingError) as error:
        raise StorageError(f"checkpoint {path} cannot be read; delete it to continue from the one before") from error
    # The optimiser's settings come from the recipe, which a user may have corrected; its moments come from the checkpoint.
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
    """The checkpoint with the highest success rate on the development slice, and that rate; of equals the earliest."""
    measured = [
        (path, json.loads((path / SUCCESS).read_text())["success"])
        for path in _numbered(folder)
        if (path / SUCCESS).exists()
    ]
    return max(measured, key=lambda pair: pair[1], default=None)


def prune(folder: Path, keep: int) -> None:
    """Delete all numbered checkpoints except the newest `keep` (at least one) and the best one."""
    top = best(folder)
    for path in _numbered(folder)[: -max(keep, 1)]:
        if top is None or path != top[0]:
            shutil.rmtree(path)


def model_folder(name: str | Path, checkpoint: str = "last") -> str | Path:
    """The model folder that a name stands for: of a run directory, or of a pretrained model's short name.

    Any other name of a model (a model directory, a hub name) comes back unchanged.

    Args:
        name: the name that a user typed.
        checkpoint: which one of a run: `last` (the cold start while there is no other), `best`, `cold-start`, or the number
            of an iteration.

    Raises:
        UsageError: the run has no such checkpoint, or the pretrained model has not been fetched.
    """
    if not (Path(name) / "recipe.json").is_file():
        return resolve(name)
    folder = Path(name) / "checkpoints"
    if checkpoint == "last":
        path = latest(folder) or folder / "cold-start"
    elif checkpoint == "best":
        path = top[0] if (top := best(folder)) else folder / "best"
    else:
        path = folder / (f"{int(checkpoint):06d}" if checkpoint.isdecimal() else checkpoint)
    if not path.is_dir():
        names = ", ".join(sorted(entry.name for entry in folder.glob("[!.]*")))
        raise UsageError(f'{name} holds no checkpoint "{checkpoint}"; there {f"are {names}" if names else "is none yet"}')
    return path


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if (path / TRAINING).exists())


def _random_states() -> _RandomStates:
    """States of the libraries' random generators. No sample of this package depends on them."""
    version, keys, position, has_gauss, cached = np.random.get_state()
    numbers = torch.from_numpy(np.asarray(keys).astype(np.int64))  # pyright: ignore[reportUnknownMemberType]  untyped in torch
    return {
        "torch": torch.get_rng_state(),
        "python": list(random.getstate()[1]),
        "numpy": [version, numbers, position, has_gauss, cached],
    }


def _set_random_states(state: _RandomStates) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate((3, tuple(state["python"]), None))
    version, keys, position, has_gauss, cached = cast("tuple[str, torch.Tensor, int, int, float]", state["numpy"])
    np.random.set_state((version, keys.numpy().astype(np.uint32), position, has_gauss, cached))
