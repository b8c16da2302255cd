"""The weights of matrix products, packed once into the order in which the processor's products read them.

Invariants
----------
* A packed product gives the bits of the plain one.
* Outside `used` the model is as it was: training never meets packed weights.

A product in bfloat16 packs its weights anew at each call, which for few rows takes longer than the product itself. oneDNN,
which computes these products for torch, takes weights that are packed already; torch's compiler uses the same operators.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn

__all__ = ["PackedWeights"]

ROWS = 64
"""Rows of a product for which the order is chosen; it serves any number."""


class PackedWeights:
    """Packed copies of a model's 16-bit matrices on the CPU; empty for any other model."""

    def __init__(self, model: nn.Module) -> None:
        operators = cast("Any", torch.ops.mkldnn)  # torch does not type its operators
        self.products: list[tuple[nn.Linear, Callable[[torch.Tensor], torch.Tensor]]] = []
        if not torch.backends.mkldnn.is_available() or not operators._is_mkldnn_bf16_supported():
            return
        for module in model.modules():
            # A subclass may compute something else.
            if type(module) is nn.Linear and module.weight.dtype == torch.bfloat16 and module.weight.device.type == "cpu":
                weight: torch.Tensor = operators._reorder_linear_weight(module.weight.detach(), ROWS)
                bias = cast("torch.Tensor | None", module.bias)
                product = partial(_product, operators._linear_pointwise, weight, bias)
                self.products.append((module, product))

    @contextmanager
    def used(self) -> Generator[None]:
        """Within the block, the model multiplies with the packed weights."""
        try:
            for module, product in self.products:
                module.__dict__["forward"] = product  # found before the method of the class
            yield
        finally:
            for module, _ in self.products:
                module.__dict__.pop("forward", None)


def _product(
    operator: Callable[..., torch.Tensor], weight: torch.Tensor, bias: torch.Tensor | None, inputs: torch.Tensor
) -> torch.Tensor:
    return operator(inputs, weight, bias, "none", [], "")
