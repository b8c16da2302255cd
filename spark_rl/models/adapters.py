# pyright: standard
"""Low-rank adapters (LoRA, arXiv 2106.09685; extra `sft`): W x becomes W x + (alpha / rank) B A x, and only A and B learn.

Invariants
----------
* The model object stays the one it was: adapters are put into its layers, so whatever samples from it, trains it or
  measures it needs to know nothing of them.
* New adapters change nothing (B is zero), and with adapters `off` the model is the one they were added to, bit for bit:
  the reference of a divergence needs no second copy.
* Adapters are 32-bit, whatever the model is: an update of 1e-6 is not lost.

A folder of adapters is what `peft` writes. Its model is the cold start beside it, wherever the run was moved to, else the
one that its configuration names.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spark_rl.errors import MissingExtra, StorageError
from spark_rl.models.weights import Weights

__all__ = ["add", "base_of", "holds_adapters", "load", "merge", "off", "present", "restore", "save"]

CONFIGURATION = "adapter_config.json"
STATE = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Of names in the file: `peft` saves a model in its own wrapper, and there is none here."""


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingExtra("training by adapters (weights.lora_rank)", "sft") from error
    return peft


def add(model: Any, settings: Weights, *, seed: int = 0) -> Any:
    """Put adapters beside every inner matrix of a model and freeze the rest; returns the same model.

    Args:
        model: a transformers causal language model.
        settings: rank and scale.
        seed: of A; B is zero.

    Raises:
        MissingExtra: peft is not installed.
    """
    config = _peft().LoraConfig(
        r=settings.lora_rank, lora_alpha=settings.scale, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _inject(model, config)


def _inject(model: Any, config: Any) -> Any:
    config.base_model_name_or_path = model.name_or_path
    _peft().inject_adapter_in_model(config, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.eval()


def holds_adapters(folder: Path) -> bool:
    """Whether a folder holds adapters and not a whole model."""
    return (folder / CONFIGURATION).is_file()


def base_of(folder: Path) -> str:
    """The model that a folder of adapters belongs to."""
    beside = folder.parent / "cold-start"
    named = json.loads((folder / CONFIGURATION).read_text()).get("base_model_name_or_path")
    return str(beside) if beside.is_dir() or not named else str(named)


def present(model: Any) -> bool:
    """Whether a model has adapters in it."""
    return hasattr(model, "peft_config")


def save(model: Any, folder: Path) -> None:
    """Write the adapters of a model, and nothing of the model, into an existing folder."""
    config = copy.copy(model.peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(str(folder))
    state = {PREFIX + name: x.contiguous().cpu() for name, x in _peft().get_peft_model_state_dict(model).items()}
    save_file(state, folder / STATE, metadata={"format": "pt"})


def load(model: Any, folder: Path) -> Any:
    """Put the adapters of a folder into their model, ready to be trained on; returns the same model.

    Raises:
        MissingExtra: peft is not installed.
        StorageError: they cannot be read.
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


def restore(model: Any, folder: Path) -> None:
    """Set a model's adapters to those of a folder."""
    found = {name.removeprefix(PREFIX): numbers for name, numbers in load_file(folder / STATE).items()}
    missing = _peft().set_peft_model_state_dict(model, found)
    if missing.unexpected_keys:
        raise StorageError(f"the adapters in {folder} are of another model: there is no {missing.unexpected_keys[0]}")


@contextlib.contextmanager
def off(model: Any) -> Iterator[Any]:
    """The model as it was before it got adapters; without any, the model as it is."""
    layers = [layer for _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield model
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _layers(model: Any) -> list[tuple[str, Any]]:
    """The layers with adapters, by name."""
    if not present(model):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]


def merge(model: Any) -> float:
    """Add the adapters to the weights, in 32 bits, and take them out; what is left is an ordinary model.

    Returns:
        The share of the adapters' change that is still there in the model's precision: 1 in 32 bits, less in 16, where
        changes below half of a weight's last digit are rounded away.
    """
    kept = wanted = 0.0
    for name, layer in _layers(model):
        inner: Any = layer.get_base_layer()
        before, dtype = inner.weight.data.double(), inner.weight.dtype
        inner.float()
        layer.merge()
        change = inner.weight.data.double() - before
        inner.to(dtype)
        kept += float(((inner.weight.data.double() - before) * change).sum())
        wanted += float(change.square().sum())
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, inner)
    if present(model):
        del model.peft_config
    model.requires_grad_(True)
    return kept / wanted if wanted else 1.0
