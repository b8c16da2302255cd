"""The mathematics of learning curves: pure functions of numbers.

Invariants
----------
* A curve is straight between its points and has no value beyond its ends, so arms are compared where all curves run.
* Comparisons are paired by seed. Means have Student's t interval, ratios of crossings a bootstrap interval over seeds.

The quantile of t is computed here (Simpson's rule for the density, then bisection), since scipy would be a dependency for
one number. numpy resamples with a fixed seed, so that a table is the same each time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Interval", "crossing_ratio", "interval", "mean_curve", "paired", "t_quantile"]

RESAMPLES = 2000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Success over a cost; `x` rises strictly."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not self.x or any(b <= a for a, b in pairwise(self.x)):
            raise ValueError(f"a curve needs as many x as y, and x that rise: {self.x}, {self.y}")

    @property
    def end(self) -> float:
        """The last x."""
        return self.x[-1]

    def at(self, x: float) -> float:
        """Success at x.

        Raises:
            ValueError: x is beyond an end.
        """
        if not self.x[0] <= x <= self.end:
            raise ValueError(f"the curve runs from {self.x[0]} to {self.end}, not to {x}")
        return float(np.interp(x, self.x, self.y))

    def area(self, end: float) -> float:
        """Mean success from the first x to `end` (area under the curve over its width); the success if both are equal."""
        if end == self.x[0]:
            return self.y[0]
        x = [value for value in self.x if value < end] + [end]
        y = [*self.y[: len(x) - 1], self.at(end)]
        return sum((b - a) * (u + v) / 2 for (a, b), (u, v) in zip(pairwise(x), pairwise(y), strict=True)) / (end - x[0])

    def crossing(self, level: float) -> float:
        """The first x at which the curve reaches a level; infinite if the curve stays below the level."""
        if self.y[0] >= level:
            return self.x[0]
        for (a, b), (u, v) in zip(pairwise(self.x), pairwise(self.y), strict=True):
            if v >= level:
                return a + (b - a) * (level - u) / (v - u)
        return math.inf


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; `low` and `high` are NaN when there is a single seed."""

    mean: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        form = form or ".3f"
        if math.isnan(self.low):
            return f"{self.mean:{form}}"
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


@cache
def t_quantile(freedom: int, probability: float = 0.975) -> float:
    """Quantile of Student's t distribution for a probability above 1/2, with a relative error below 1e-9."""
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2

    def mass(t: float, parts: int = 2000) -> float:
        """Probability between 0 and t, integrated over the angle with tan(angle) = x / sqrt(freedom) for a finite range."""
        end = math.atan(t / math.sqrt(freedom))
        weights = [4 if i % 2 else 2 for i in range(1, parts)]
        inner = sum(w * math.cos(end * i / parts) ** (freedom - 1) for i, w in enumerate(weights, 1))
        total = (1 + inner + math.cos(end) ** (freedom - 1)) * end / parts / 3
        return total * math.exp(log_scale) * math.sqrt(freedom)

    low, high = 0.0, 1.0
    while mass(high) < probability - 0.5:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if mass(middle) < probability - 0.5 else (low, middle)
    return (low + high) / 2


def interval(values: Sequence[float]) -> Interval:
    """Mean over seeds and its Student's t interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def paired(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Mean difference to the baseline, paired by seed."""
    return interval([value - base for value, base in zip(values, baseline, strict=True)])


def mean_curve(curves: Sequence[Curve]) -> tuple[Floats, Floats]:
    """All curves at the union of their points, where all of them run; the mean curve is straight between these points.

    Returns:
        x [points] and success [curves, points].
    """
    low, high = max(curve.x[0] for curve in curves), min(curve.end for curve in curves)
    x = np.unique([value for curve in curves for value in curve.x if low <= value <= high])
    return x, np.stack([np.interp(x, curve.x, curve.y) for curve in curves])


def crossing_ratio(curves: Sequence[Curve], baseline: Sequence[Curve], seed: int = 0) -> Interval:
    """The cost at which an arm first reaches the final success of the baseline, over the same cost of the baseline.

    Both costs come from mean curves over seeds, since the curve of a single seed may never reach that success. Both are
    first crossings, so that the ratio of a baseline to itself is 1 and noise favours neither. The ratio is infinite where
    the arm does not reach the success, and 1 where both curves start above it. The interval resamples the same seeds for
    both curves.

    Args:
        curves: the curves of the arm, one for each seed.
        baseline: the curves of the baseline, in the same order of seeds.
        seed: the seed of the resampling.
    """
    own, base = mean_curve(curves), mean_curve(baseline)
    everyone = np.arange(len(curves))

    def ratio(chosen: NDArray[np.int64]) -> float:
        level = float(base[1][chosen, -1].mean())
        own_cost, base_cost = (_first(x, y[chosen].mean(axis=0), level) for x, y in (own, base))
        if base_cost == 0:
            return 1.0 if own_cost == 0 else math.inf
        return own_cost / base_cost

    estimate = ratio(everyone)
    if len(curves) < 2:
        return Interval(estimate, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    ratios = sorted(ratio(rng.choice(everyone, len(curves))) for _ in range(RESAMPLES))
    # Order statistics without interpolation, because some ratios may be infinite.
    return Interval(estimate, ratios[round(0.025 * (RESAMPLES - 1))], ratios[round(0.975 * (RESAMPLES - 1))])


def _first(x: Floats, y: Floats, level: float) -> float:
    """The first crossing of a level; the tolerance keeps a crossing at the last point that rounding would hide."""
    reached = np.flatnonzero(y >= level - 1e-12)
    if not len(reached):
        return math.inf
    first = int(reached[0])
    if first == 0:
        return float(x[0])
    (a, b), (u, v) = x[first - 1 : first + 1], y[first - 1 : first + 1]
    return float(a + (b - a) * min(1.0, (level - u) / (v - u)))
