"""Freed memory leaves the process."""

from __future__ import annotations

import ctypes
import sys

import pytest

from spark_rl.common.heap import give_back
from spark_rl.common.progress import resident_bytes

MANY, SIZE = 2000, 100_000


def test_freed_memory_leaves_the_process() -> None:
    libc = ctypes.CDLL(None)
    if sys.platform != "linux" or not hasattr(libc, "malloc_trim"):
        pytest.skip("only glibc has a call that returns freed memory")
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    pieces = [libc.malloc(SIZE) for _ in range(MANY)]
    for piece in pieces:
        ctypes.memset(piece, 1, SIZE)
    last = pieces.pop()  # it lies above the others, which the library therefore keeps
    for piece in pieces:
        libc.free(piece)
    before = resident_bytes()
    give_back()
    assert before - resident_bytes() > 0.8 * MANY * SIZE
    libc.free(last)
