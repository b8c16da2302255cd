"""A model that several ranks hold and train together: each a share of weights, gradients and moments (FSDP2).

Invariants
----------
* The gradient of a step is the sum over the ranks' passes, so a loss that is divided by the whole mini-batch's denominator
  has the gradient of one process.
* What leaves this module is whole: weights, moments and checkpoints do not tell how many ranks made them.
* Every rank calls every function here, since each of them may gather.

A 16-bit model that is trained whole has 32-bit shards, which the ranks gather as 16-bit numbers: the shards are the copies
that one process has beside its weights (`optimizer.AdamWOnCopies`). Beside adapters the frozen weights keep their precision.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import AdamW
from transformers.modeling_layers import GradientCheckpointingLayer

from spark_rl.contracts import LanguageModel, ModelState, Ranks
from spark_rl.errors import UsageError
from spark_rl.learning.held import Held

__all__ = ["AdamWOnShards", "Shared", "Whole"]

HALF = 2
"""Bytes of a 16-bit number."""


class Shared(Held):
    """A model that several ranks train: a copy in shards beside the whole model."""

    def __init__(self, model: LanguageModel, ranks: Ranks, *, lr: float, weight_decay: float) -> None:
        """Split a model.

        Args:
            model: a transformers causal language model, adapters included; the same on each rank.
            ranks: the ranks of the process group.
            lr: learning rate of AdamW.
            weight_decay: of AdamW.

        Raises:
            UsageError: the model cannot be split.
        """
        halves = any(each.requires_grad and each.dtype.itemsize == HALF for each in model.parameters())
        self.whole, self.ranks = model, ranks
        self.model = copy.deepcopy(model)
        _shard(self.model, ranks)
        self.optimizer = AdamWOnShards(self.model, lr=lr, weight_decay=weight_decay, copies=halves)

    def weights(self) -> ModelState:
        """All weights by name; each is gathered when it is asked for."""
        return Whole(self.model)

    def collect(self) -> None:
        """Gather the shards into the whole model, rounded to its precision."""
        weights = self.weights()
        with torch.no_grad():
            for name, mine in self.whole.state_dict().items():
                mine.copy_(weights[name])

    def spread(self) -> None:
        """Take this rank's shards of the whole model."""
        weights = self.whole.state_dict()
        with torch.no_grad():
            for name, mine in self.model.state_dict().items():
                mine.copy_(_split(weights[name].to(mine.dtype), mine))

    def frozen(self, model: LanguageModel) -> LanguageModel:
        """The model in shards, in place."""
        _shard(model.requires_grad_(False), self.ranks)
        return model


class Whole(Mapping[str, Tensor]):
    """The weights of a sharded model by name; each is gathered when it is asked for. All ranks ask in the same order."""

    def __init__(self, model: LanguageModel) -> None:
        self._shards = model.state_dict()

    def __getitem__(self, name: str) -> Tensor:
        return _whole(self._shards[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)


class AdamWOnShards(AdamW):
    """AdamW over the shards of a model, whose state is that of one process."""

    def __init__(self, model: LanguageModel, *, lr: float, weight_decay: float, copies: bool) -> None:
        """`copies`: whether one process would train copies of the weights, which its state then holds."""
        self.copies = copies
        self.shards = [weight for weight in model.parameters() if weight.requires_grad]
        fused = True if model.device.type == "cuda" else None
        super().__init__(self.shards, lr=lr, weight_decay=weight_decay, fused=fused)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, on each rank."""
        state = super().state_dict()
        moments = {index: {name: _whole(value).cpu() for name, value in of.items()} for index, of in state["state"].items()}
        copies = {"copies": [_whole(each.detach()).cpu() for each in self.shards]} if self.copies else {}
        return {**state, "state": moments, **copies}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take this rank's part of a whole state."""
        moments: dict[int, dict[str, Tensor]] = {}
        for index, of in cast("dict[int, dict[str, Tensor]]", state_dict["state"]).items():
            shard = self.shards[index]
            moments[index] = {
                name: _split(each, shard) if each.shape == shard.shape else each  # the number of steps is not split
                for name, each in of.items()
            }
        super().load_state_dict({"state": moments, "param_groups": state_dict["param_groups"]})
        with torch.no_grad():
            for mine, saved in zip(self.shards, state_dict["copies"] if self.copies else (), strict=False):
                mine.copy_(_split(saved, mine))


def _shard(model: LanguageModel, ranks: Ranks) -> None:
    """Split the weights of a model over the ranks, layer by layer, in place.

    Args:
        model: a transformers causal language model, the same on each rank.
        ranks: the ranks of the process group.

    Raises:
        UsageError: the model does not say what its layers are.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise UsageError(
            f"{type(model).__name__} does not mark its layers, so {ranks.count} ranks cannot share it: set --scale.ranks 1"
        )
    whole = cast(nn.Module, model)
    trained = {weight.dtype for weight in model.parameters() if weight.requires_grad}
    every = {weight.dtype for weight in model.parameters()}
    policy = MixedPrecisionPolicy()
    if trained == every and trained <= {torch.bfloat16, torch.float16}:
        policy = MixedPrecisionPolicy(param_dtype=next(iter(trained)), reduce_dtype=torch.float32)
    mesh = init_device_mesh(model.device.type, (ranks.count,))
    for part in (*layers, whole):
        if policy.param_dtype:
            part.float()
        fully_shard(part, mesh=mesh, mp_policy=policy)
    for part in whole.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)  # a sum, not a mean
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no sum with a factor


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _split(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor that all ranks have, split as another one is."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
