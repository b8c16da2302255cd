"""The mathematics of curves, against numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.experiments.compare.curves import Curve, Interval, crossing_ratio, interval, mean_curve, paired, t_quantile


def near(value: float) -> Any:
    """Equal up to rounding."""
    return pytest.approx(value)


LINE = Curve((0, 10, 30), (0.2, 0.4, 0.3))


def test_a_curve_is_read_along_straight_lines_and_not_beyond_its_ends():
    assert [LINE.at(x) for x in (0, 5, 10, 20, 30)] == pytest.approx([0.2, 0.3, 0.4, 0.35, 0.3])
    with pytest.raises(ValueError, match="not to 31"):
        LINE.at(31)
    for x, y in (((0, 0), (1, 1)), ((0, 2, 1), (1, 1, 1)), ((0,), (1, 2)), ((), ())):
        with pytest.raises(ValueError, match="x that rise"):
            Curve(x, y)


def test_area_is_the_mean_height():
    assert LINE.area(10) == pytest.approx(0.3)
    assert LINE.area(5) == pytest.approx(0.25)
    assert LINE.area(30) == pytest.approx((10 * 0.3 + 20 * 0.35) / 30)
    assert LINE.area(20) == pytest.approx((10 * 0.3 + 10 * 0.375) / 20)
    assert LINE.area(0) == 0.2


def test_a_crossing_is_the_first_and_infinite_without_one():
    assert LINE.crossing(0.3) == pytest.approx(5)
    assert LINE.crossing(0.2) == LINE.crossing(0.1) == 0
    assert LINE.crossing(0.4) == 10
    assert LINE.crossing(0.41) == math.inf


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0, 1))
def test_at_a_crossing_the_curve_is_at_the_level(heights, level):
    curve = Curve(tuple(map(float, range(len(heights)))), tuple(heights))
    where = curve.crossing(level)
    if math.isfinite(where):
        assert curve.at(where) >= level - 1e-9
        assert where == 0 or curve.at(where) == pytest.approx(level, abs=1e-9)
    else:
        assert max(heights) < level
    assert min(heights) - 1e-9 <= curve.area(curve.end) <= max(heights) + 1e-9


def test_quantiles_of_students_t():
    """Values of published tables."""
    found = [t_quantile(freedom) for freedom in (1, 2, 4, 9, 23, 120)]
    assert found == pytest.approx([12.7062, 4.3027, 2.7764, 2.2622, 2.0687, 1.9799], abs=5e-5)
    assert t_quantile(1, 0.75) == pytest.approx(1.0)


def test_intervals_of_means_and_of_paired_differences():
    assert interval([1.0, 2.0, 3.0]) == Interval(2.0, near(2 - 4.30265273 / 3**0.5), near(2 + 4.30265273 / 3**0.5))
    # Seeds differ by far more than arms: pairing takes that away.
    assert paired([0.3, 0.6, 0.9], [0.2, 0.5, 0.8]) == Interval(*[near(0.1)] * 3)
    alone = interval([0.5])
    assert f"{alone}" == "0.500"
    assert f"{interval([0.5, 0.5]):+.2f}" == "+0.50 [+0.50, +0.50]"


def test_curves_of_seeds_run_together_to_where_the_first_of_them_ends():
    x, y = mean_curve([Curve((0, 10), (0, 1)), Curve((0, 20), (0, 1))])
    assert (x[0], x[-1]) == (0, 10)
    assert y[:, -1] == pytest.approx([1.0, 0.5])
    assert np.all(np.diff(x) > 0)


def test_the_ratio_of_crossings():
    base = [Curve((0, 100), (0.2, 0.6))] * 4
    twice = [Curve((0, 50, 80), (0.2, 0.6, 0.7))] * 4
    assert crossing_ratio(twice, base) == Interval(*[near(0.5)] * 3)
    assert crossing_ratio(base, base) == Interval(*[near(1.0)] * 3)
    assert crossing_ratio([Curve((0, 100), (0.2, 0.5))] * 4, base).mean == math.inf
    assert math.isnan(crossing_ratio(twice[:1], base[:1]).low)
    # A baseline that learns nothing is reached by everybody at once.
    assert crossing_ratio(twice, [Curve((0, 100), (0.2, 0.1))] * 4).mean == 1.0


def test_the_bootstrap_resamples_both_sides_alike_and_tells_when_an_arm_may_never_arrive():
    base = [Curve((0, 100), (0.2, 0.6)), Curve((0, 100), (0.2, 0.4)), Curve((0, 100), (0.2, 0.5))]
    same = crossing_ratio(base, base)
    assert (same.low, same.high) == pytest.approx((1, 1)), "paired"
    mixed = [Curve((0, 100), (0.2, 0.9)), Curve((0, 100), (0.2, 0.3)), Curve((0, 100), (0.2, 0.6))]
    found = crossing_ratio(mixed, base)
    assert found.mean == pytest.approx(0.3 / 0.4)
    assert found.low < 0.6
    assert found.high == math.inf
    assert crossing_ratio(mixed, base) == found, "with a fixed seed"
