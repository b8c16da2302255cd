"""What two sequences of tokens have in common at their beginning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["shared_prefix"]


def shared_prefix(left: NDArray[np.integer[Any]], right: NDArray[np.integer[Any]]) -> int:
    """How many leading ids agree."""
    length = min(len(left), len(right))
    differ = np.flatnonzero(left[:length] != right[:length])
    return int(differ[0]) if len(differ) else length
