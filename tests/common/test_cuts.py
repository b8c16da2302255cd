"""The cheapest way to cut a line, against all ways to cut it."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.common.cuts import cheapest_cuts


@given(st.integers(1, 7), st.integers(1, 7), st.randoms(use_true_random=False))
def test_no_other_cuts_cost_less(count, longest, rng):
    price = {(start, stop): rng.randrange(100) for stop in range(1, count + 1) for start in range(stop)}

    def pieces(stop):
        first = max(0, stop - longest)
        return first, np.array([price[start, stop] for start in range(first, stop)], float)

    ways = ([0, *inner, count] for size in range(count) for inner in combinations(range(1, count), size))
    sums = [
        sum(price[piece] for piece in pairwise(way))
        for way in ways
        if all(stop - start <= longest for start, stop in pairwise(way))
    ]
    found = cheapest_cuts(count, pieces)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (0, count)
    assert sum(price[piece] for piece in pairwise(found)) == min(sums)
