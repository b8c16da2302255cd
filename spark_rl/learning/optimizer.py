"""AdamW on 32-bit copies of 16-bit weights.

Invariants
----------
* The optimiser works on 32-bit numbers. So a step of 1e-6 on a weight of 0.02 is not lost; in bfloat16, where neighbouring
  numbers near 0.02 are 1.2e-4 apart, every such step would be lost. The model's weights are the rounded copies.
* Gradients of micro-batches add up in 32 bits: each new gradient is added to the copy's gradient, and its memory is freed.
* A 32-bit model has no copies and gets plain AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch.optim import AdamW, Optimizer

from spark_rl.contracts import LanguageModel

__all__ = ["AdamWOnCopies", "adamw", "number", "trained"]


def adamw(model: LanguageModel | torch.nn.Module, *, lr: float, weight_decay: float = 0.01) -> Optimizer:
    """AdamW over the trained weights of a model, on 32-bit copies of 16-bit weights."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # On CUDA, a step that is not fused holds several more copies of the weights for a moment.
    fused = True if any(parameter.is_cuda for parameter in parameters) else None
    halves = any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in parameters)
    return (AdamWOnCopies if halves else AdamW)(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


def trained(optimizer: Optimizer) -> list[torch.Tensor]:
    """The tensors that hold the gradients after a backward pass."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def number(tensor: torch.Tensor) -> float:
    """The number in a tensor without dimensions, which may be a sum over the shards of all ranks."""
    whole: Callable[[], torch.Tensor] | None = getattr(tensor, "full_tensor", None)
    return float(tensor if whole is None else whole())


class AdamWOnCopies(AdamW):
    """AdamW that updates 32-bit copies and rounds them into the weights."""

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float, fused: bool | None = None
    ) -> None:
        self.weights = list(parameters)
        self.copies = [torch.nn.Parameter(weight.detach().to(torch.float32, copy=True)) for weight in self.weights]
        super().__init__(self.copies, lr=lr, weight_decay=weight_decay, fused=fused)
        for weight, copy in zip(self.weights, self.copies, strict=True):
            # torch does not annotate the hooks of tensors, nor the steps of its optimisers.
            weight.register_post_accumulate_grad_hook(_move_gradient_to(copy))  # pyright: ignore[reportUnknownMemberType]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the copies, then set the weights to the rounded copies."""
        result = cast("float | None", super().step(closure))  # pyright: ignore[reportUnknownMemberType]
        self._round()
        return result

    def state_dict(self) -> dict[str, Any]:
        """The state of AdamW, and the copies."""
        return {**super().state_dict(), "copies": [copy.detach() for copy in self.copies]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of AdamW and the copies, and set the weights to the rounded copies."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "copies"})
        with torch.no_grad():
            for copy, saved in zip(self.copies, state_dict["copies"], strict=True):
                copy.copy_(saved)
        self._round()

    def _round(self) -> None:
        with torch.no_grad():
            for weight, copy in zip(self.weights, self.copies, strict=True):
                weight.copy_(copy)


def _move_gradient_to(copy: torch.nn.Parameter) -> Callable[[torch.Tensor], None]:
    def move(weight: torch.Tensor) -> None:
        assert weight.grad is not None
        gradient = weight.grad.to(copy.dtype)
        copy.grad = gradient if copy.grad is None else copy.grad.add_(gradient)
        weight.grad = None

    return move
