"""Memory that was freed goes back to the system.

Growing, learning and evaluating each free gigabytes in pieces. The C library keeps freed pieces for later requests of its
own, so that without `give_back` a process holds what all of its phases needed, and not what the largest one needs.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back"]


def give_back() -> None:
    """Return freed memory to the system, where the C library has a call for it (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
