# pyright: standard
"""AdamW on 32-bit copies of 16-bit weights, and what an update trains.

Invariants
----------
* What the optimiser holds is 32-bit: a step of 1e-6 on a weight of 0.02 is kept, while in bfloat16, whose neighbours there
  are 1.2e-4 apart, it would be lost each time. The model's weights are its copies, rounded.
* Gradients of micro-batches add up in 32 bits: as soon as one is computed, it goes to the copy and its own memory is free.
* A model in 32 bits has no copies, and gets plain AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

__all__ = ["MasterAdamW", "adamw", "trained"]


def adamw(model: Any, **settings: Any) -> Optimizer:
    """AdamW over the weights of a model that are trained, on 32-bit copies where they are 16-bit."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(parameter.is_cuda for parameter in parameters):
        settings["fused"] = True  # without it a step holds several more copies of the weights for a moment
    halves = any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in parameters)
    return (MasterAdamW if halves else AdamW)(parameters, **settings)


def trained(optimizer: Optimizer) -> list[torch.Tensor]:
    """What holds the gradients after a backward pass."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class MasterAdamW(AdamW):
    """AdamW that steps on 32-bit copies and rounds them into the weights."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], **settings: Any) -> None:
        self.weights = list(parameters)
        self.copies = [torch.nn.Parameter(weight.detach().to(torch.float32, copy=True)) for weight in self.weights]
        super().__init__(self.copies, **settings)
        for weight, copy in zip(self.weights, self.copies, strict=True):
            weight.register_post_accumulate_grad_hook(_moving_to(copy))

    def step(self, closure: Any = None) -> Any:
        """One step on the copies, then the weights are set to them."""
        result = super().step(closure)
        self._round()
        return result

    def state_dict(self) -> dict[str, Any]:
        """What AdamW holds, and the copies."""
        return {**super().state_dict(), "copies": [copy.detach() for copy in self.copies]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse; the weights are set, too."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "copies"})
        with torch.no_grad():
            for copy, saved in zip(self.copies, state_dict["copies"], strict=True):
                copy.copy_(saved)
        self._round()

    def _round(self) -> None:
        with torch.no_grad():
            for weight, copy in zip(self.weights, self.copies, strict=True):
                weight.copy_(copy)


def _moving_to(copy: torch.nn.Parameter) -> Any:
    def move(weight: torch.Tensor) -> None:
        assert weight.grad is not None
        gradient = weight.grad.to(copy.dtype)
        copy.grad = gradient if copy.grad is None else copy.grad.add_(gradient)
        weight.grad = None

    return move
