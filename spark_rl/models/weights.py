"""Which weights are trained, and in what precision: plain settings, so that recipes need no torch to hold them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from spark_rl.errors import UsageError

__all__ = ["Weights"]


@dataclass(frozen=True)
class Weights:
    """How a model is held and which of its weights are trained."""

    lora_rank: int = 0
    """Rank of low-rank adapters (LoRA, arXiv 2106.09685) beside every inner matrix, trained in 32 bits while the model's own
    weights stand still; 0 trains all weights."""
    lora_alpha: float = 0.0
    """Adapters are scaled by alpha / rank; 0 means twice the rank."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision the model computes in; auto is the one it was saved in. All weights of a 16-bit model are trained on 32-bit
    copies, since a step of 1e-6 is lost in 16 bits."""
    checkpointing: bool = False
    """Keep only the layers' inputs for the backward pass and compute the rest again: far less memory, a third more time."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto is cuda where there is one."""

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
        """Alpha as it is used."""
        return self.lora_alpha or 2.0 * self.lora_rank
