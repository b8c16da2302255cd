"""Settings of the weights that are trained and of their precision. Recipes can hold them without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from spark_rl.errors import UsageError

__all__ = ["Weights"]


@dataclass(frozen=True)
class Weights:
    """Precision and device of a model, and which of its weights are trained."""

    lora_rank: int = 0
    """Rank of low-rank adapters (LoRA, arXiv 2106.09685) beside every inner matrix. The adapters are trained in 32 bits and
    the model's own weights are frozen; 0 trains all weights instead."""
    lora_alpha: float = 0.0
    """Alpha: the adapters' output is scaled by alpha / rank; 0 means twice the rank."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision in which the model computes; auto takes the precision in which it was saved. Training updates a 32-bit copy
    of each 16-bit weight, since a step of 1e-6 is lost in 16 bits."""
    checkpointing: bool = False
    """Keep only the inputs of layers for the backward pass and recompute the rest: far less memory, a third more time."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto is cuda where there is a CUDA device, else cpu."""

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise UsageError(f"weights.lora_rank is {self.lora_rank}: it must be 0 (train all weights) or more")
        if self.lora_alpha < 0:
            raise UsageError(f"weights.lora_alpha is {self.lora_alpha}: it must be 0 (twice the rank) or more")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise UsageError(f'weights.dtype is "{self.dtype}": choose auto, float32 or bfloat16')
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError(
                f'weights.device is "{self.device}": choose auto, cpu, cuda or cuda:N (sampling needs 64-bit numbers, which '
                "other devices lack)"
            )

    @property
    def scale(self) -> float:
        """Alpha, with 0 replaced by twice the rank."""
        return self.lora_alpha or 2.0 * self.lora_rank
