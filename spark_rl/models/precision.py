"""Measures whether the processor computes in bfloat16, or emulates it.

A processor with such instructions (AVX-512 BF16, AMX, the ARM extension) multiplies two to ten times as fast as in 32 bits.
One without them converts every number to 32 bits and back, which is slower than 32 bits alone, and nothing tells. Flags of
the processor have many names, so products are timed.
"""

from __future__ import annotations

from spark_rl.models.products import product_seconds

__all__ = ["bfloat16_price", "warning"]


def bfloat16_price() -> float:
    """How long a matrix product takes in bfloat16, over the time in float32, on one thread; takes some milliseconds."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        return product_seconds(torch.ones(256, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype), threads=1)

    return seconds(torch.bfloat16) / seconds(torch.float32)


def warning(price: float) -> str:
    """What to say of a model in bfloat16 on a processor with this price; empty where bfloat16 is the faster one."""
    if price <= 1:
        return ""
    return (
        f"this processor has no bfloat16: a product takes {price:.1f} times as long as in float32, so set "
        "weights.dtype float32"
    )
