"""Wilcoxon's signed-rank test (Biometrics Bulletin 1, 1945), exact.

Differences of zero are left out, and equal differences share the mean of their ranks. Under the null hypothesis all 2^n
combinations of signs are equally likely. The distribution of the rank sum is counted, not approximated, so that it is valid
for few pairs and with ties. scipy would be a dependency for one number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["FEWEST", "signed_rank"]

FEWEST = 6
"""Fewest pairs for which a two-sided p below 0.05 is possible (with 5 pairs the least p is 2 / 2^5 = 0.0625)."""


def signed_rank(differences: Sequence[float]) -> tuple[float, int]:
    """Two-sided p value for the null hypothesis that paired differences lie around zero.

    Args:
        differences: one difference for each pair.

    Returns:
        p, and the number n of pairs that differ; p is 1 if n is 0.
    """
    nonzero = [round(value, 9) for value in differences if round(value, 9)]  # values equal up to rounding count as equal
    doubled = _doubled_ranks([abs(value) for value in nonzero])
    above = sum(rank for rank, value in zip(doubled, nonzero, strict=True) if value > 0)
    counts = Counter({0: 1})
    for rank in doubled:
        shifted = Counter({total + rank: ways for total, ways in counts.items()})
        counts.update(shifted)
    tail = min(above, sum(doubled) - above)
    ways = sum(count for total, count in counts.items() if total <= tail)
    return min(1.0, 2 * ways / 2 ** len(nonzero)), len(nonzero)


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value: an integer even where tied values share a mean rank."""
    below = {value: sum(other < value for other in values) for value in set(values)}
    return [2 * below[value] + values.count(value) + 1 for value in values]
