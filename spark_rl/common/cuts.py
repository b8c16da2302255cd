"""Where to cut a line into pieces so that their prices sum to least, by dynamic programming."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["cheapest_cuts"]


def cheapest_cuts(count: int, pieces: Callable[[int], tuple[int, NDArray[np.float64]]]) -> list[int]:
    """The cuts with the lowest sum of prices, from 0 to `count`, both included.

    Args:
        count: number of places on the line.
        pieces: for a place, the first place at which a piece that ends there may start, and the price of the piece from this
            place and from each later one.
    """
    least, previous = np.zeros(count + 1), np.zeros(count + 1, np.int64)
    for stop in range(1, count + 1):
        first, prices = pieces(stop)
        sums = least[first:stop] + prices
        previous[stop] = first + np.argmin(sums)
        least[stop] = sums.min()
    cuts = [count]
    while cuts[-1]:
        cuts.append(int(previous[cuts[-1]]))
    return cuts[::-1]
