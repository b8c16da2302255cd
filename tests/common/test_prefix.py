"""What two sequences have in common at their beginning."""

from __future__ import annotations

import numpy as np
import pytest

from spark_rl.common.prefix import shared_prefix


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


@pytest.mark.parametrize(
    ("left", "right", "length"),
    [((), (), 0), ((1, 2), (), 0), ((1, 2), (1, 2), 2), ((1, 2, 3), (1, 2), 2), ((1, 2, 3), (1, 5, 3), 1), ((4,), (5,), 0)],
)
def test_shared_prefix(left: tuple[int, ...], right: tuple[int, ...], length: int) -> None:
    assert shared_prefix(ids(*left), ids(*right)) == length
    assert shared_prefix(ids(*right), ids(*left)) == length
