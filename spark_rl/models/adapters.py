"""Low-rank adapters (LoRA, arXiv 2106.09685; extra `sft`): W x becomes W x + (alpha / rank) B A x, and only A and B learn.

Invariants
----------
* The model object stays the same: adapters are put into its layers. Code that samples from the model, trains it or
  measures it need not know about adapters.
* New adapters change nothing, since B is zero. With adapters `off` the model equals the base model bit for bit, so the
  reference model needs no second copy.
* Adapters are 32-bit, whatever precision the model has: an update of 1e-6 is not lost.

A folder of adapters has the format of `peft`. Its base model is the folder `cold-start` beside it; without one, the model
that its configuration names. So a run directory can be moved.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import (
    load_file,  # pyright: ignore[reportUnknownVariableType]  its folder may be a bare PathLike
    save_file,  # pyright: ignore[reportUnknownVariableType]
)

from spark_rl.common.seeding import derive
from spark_rl.contracts import LanguageModel, ModelState
from spark_rl.errors import MissingExtra, StorageError
from spark_rl.models.weights import Weights

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn

__all__ = [
    "add",
    "add_new",
    "base_of",
    "base_state",
    "holds_adapters",
    "load",
    "merge",
    "off",
    "present",
    "rank",
    "restore",
    "save",
]

CONFIGURATION = "adapter_config.json"
STATE = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Prefix of names in the file. `peft` saves a model inside its own wrapper, and this package uses no wrapper."""

ModelT = TypeVar("ModelT", bound=LanguageModel)


def _peft() -> ModuleType:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingExtra("training by adapters (weights.lora_rank)", "sft") from error
    return peft


def add(model: ModelT, settings: Weights, *, seed: int = 0) -> ModelT:
    """Put adapters beside every inner matrix of a model and freeze all other weights; returns the same model.

    Args:
        model: a transformers causal language model.
        settings: rank and scale.
        seed: seed of the random numbers in A; B is zero.

    Raises:
        MissingExtra: peft is not installed.
    """
    config = _peft().LoraConfig(
        r=settings.lora_rank, lora_alpha=settings.scale, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    # torch does not annotate all arguments of its random functions, nor peft those of `save_pretrained`.
    with torch.random.fork_rng():  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        return _inject(model, config)


def add_new(model: ModelT, settings: Weights, *, run_seed: int) -> ModelT:
    """Put the adapters with which a run begins beside a model; each process of the run gets the same ones."""
    return add(model, settings, seed=derive(run_seed, "adapters") % 2**63)


def _inject(model: ModelT, config: LoraConfig) -> ModelT:
    config.base_model_name_or_path = model.name_or_path
    _peft().inject_adapter_in_model(config, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.eval()


class _Adapted(Protocol):
    """A model after `peft` has put adapters into its layers."""

    peft_config: dict[str, LoraConfig]


class _AdaptedLayer(Protocol):
    """A layer of `peft` around one of the model's matrices."""

    def enable_adapters(self, enabled: bool) -> None: ...

    def merge(self) -> None: ...

    def get_base_layer(self) -> nn.Linear: ...


def holds_adapters(folder: Path) -> bool:
    """Whether a folder holds adapters and not a whole model."""
    return (folder / CONFIGURATION).is_file()


def base_of(folder: Path) -> str:
    """Folder or name of the base model that a folder of adapters belongs to."""
    beside = folder.parent / "cold-start"
    named = json.loads((folder / CONFIGURATION).read_text()).get("base_model_name_or_path")
    return str(beside) if beside.is_dir() or not named else str(named)


def present(model: LanguageModel) -> bool:
    """Whether a model has adapters in its layers."""
    return hasattr(model, "peft_config")


def rank(model: LanguageModel) -> int:
    """Rank of a model's adapters; 0 without."""
    return int(cast(_Adapted, model).peft_config["default"].r) if present(model) else 0


def base_state(state: ModelState) -> ModelState:
    """The weights of the base model, under its own names, from those of a model with adapters."""
    return {name.replace(".base_layer.", "."): numbers for name, numbers in state.items() if ".lora_" not in name}


def save(model: LanguageModel, folder: Path, weights: ModelState | None = None) -> None:
    """Write the adapters of a model into an existing folder, without the weights of the base model.

    Args:
        model: a model with adapters.
        folder: an existing folder.
        weights: weights of such a model that hold the adapters; None takes the model's own.
    """
    config = copy.copy(cast(_Adapted, model).peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(str(folder))  # pyright: ignore[reportUnknownMemberType]
    adapted = _peft().get_peft_model_state_dict(model, state_dict=None if weights is None else dict(weights))
    state = {PREFIX + name: x.contiguous().cpu() for name, x in adapted.items()}
    save_file(state, folder / STATE, metadata={"format": "pt"})


def load(model: ModelT, folder: Path) -> ModelT:
    """Put the adapters of a folder into their base model, ready for further training; returns the same model.

    Raises:
        MissingExtra: peft is not installed.
        StorageError: the adapters cannot be read.
    """
    peft = _peft()
    try:
        config = peft.LoraConfig.from_pretrained(str(folder))
        config.inference_mode = False
        _inject(model, config)
        restore(model, folder)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise StorageError(f"the adapters in {folder} cannot be read ({str(error).partition(chr(10))[0]})") from error
    return model


def restore(model: LanguageModel, folder: Path) -> None:
    """Set the adapters of a model to those in a folder.

    Raises:
        StorageError: the adapters belong to another model.
    """
    state = {name.removeprefix(PREFIX): numbers for name, numbers in load_file(folder / STATE).items()}
    result = _peft().set_peft_model_state_dict(model, state)
    if result.unexpected_keys:
        raise StorageError(
            f"the adapters in {folder} belong to another model: this model has no layer {result.unexpected_keys[0]}"
        )


@contextlib.contextmanager
def off(model: ModelT) -> Generator[ModelT]:
    """Switch the adapters of a model off until the block ends; a model without adapters stays as it is."""
    layers = [layer for _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield model
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _layers(model: LanguageModel) -> list[tuple[str, _AdaptedLayer]]:
    """Name and layer, for each layer with adapters."""
    if not present(model):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]
    return cast("list[tuple[str, _AdaptedLayer]]", layers)


def merge(model: LanguageModel) -> float:
    """Add the adapters to the weights, in 32 bits, and remove them; the model is an ordinary one afterwards.

    Returns:
        The share of the adapters' change that survives in the model's precision: 1 in 32 bits; less in 16 bits, where
        changes below half of a weight's last digit are rounded away.
    """
    realised = intended = 0.0
    for name, layer in _layers(model):
        inner = layer.get_base_layer()
        before, dtype = inner.weight.data.double(), inner.weight.dtype
        inner.float()
        layer.merge()
        change = inner.weight.data.double() - before
        inner.to(dtype)
        realised += float(((inner.weight.data.double() - before) * change).sum())
        intended += float(change.square().sum())
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, inner)
    if present(model):
        del cast(_Adapted, model).peft_config
    model.requires_grad_(True)
    return realised / intended if intended else 1.0
