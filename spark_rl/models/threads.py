"""Measures how many threads a matrix product should use. The best number depends on the other programs on the cores.

Idle cores share a product well. On busy cores the threads of a product wait for each other at barriers, and several threads
can be many times slower than one.
"""

from __future__ import annotations

import os

from spark_rl.models.products import product_seconds

__all__ = ["choose_threads"]

MARGIN = 1.15
"""More threads must be faster than fewer by this factor, since the rest of the program runs on one thread."""


def choose_threads() -> int:
    """The number of threads (1, 2, 4, ... up to the usable cores) with the fastest products now; takes some milliseconds.

    Does not set the number: pass the result to `torch.set_num_threads`.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    left, right = torch.ones(1024, 256), torch.ones(256, 256)
    best, fastest = 1, product_seconds(left, right, 1)
    for threads in sorted({*(2**k for k in range(1, cores.bit_length()) if 2**k <= cores), cores} - {1}):
        if (time_taken := product_seconds(left, right, threads)) * MARGIN < fastest:
            best, fastest = threads, time_taken
    return best
