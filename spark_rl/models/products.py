"""How long matrix products take on this processor now, for choices that no flag of the processor decides."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["product_seconds"]


def product_seconds(left: torch.Tensor, right: torch.Tensor, threads: int) -> float:
    """Seconds of the product of two matrices on so many threads; torch's number of threads is the same afterwards."""
    import torch

    before = torch.get_num_threads()
    laps: list[float] = []
    torch.set_num_threads(threads)
    try:
        for _ in range(8):  # the median counts: the first lap starts threads and kernels, and others may be interrupted
            start = time.perf_counter()
            torch.mm(left, right)
            laps.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return statistics.median(laps)
