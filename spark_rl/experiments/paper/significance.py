"""Wilcoxon's signed-rank test (Biometrics Bulletin 1, 1945), exact.

Differences of zero are left out, equal ones share the mean of their ranks, and under the null hypothesis each of the 2^n
signs is as likely as its opposite. The distribution of the rank sum is counted, not approximated, so that it holds for few
pairs and with ties; scipy would be a dependency for one number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["FEWEST", "signed_rank"]

FEWEST = 6
"""Pairs without which no two-sided p below 0.05 is possible (2 / 2^5 = 0.0625)."""


def signed_rank(differences: Sequence[float]) -> tuple[float, int]:
    """Two-sided p that paired differences lie around zero.

    Args:
        differences: one a pair.

    Returns:
        p, and the number of pairs that differ (n); p is 1 without any.
    """
    kept = [round(value, 9) for value in differences if round(value, 9)]  # equal up to rounding is equal
    doubled = _doubled_ranks([abs(value) for value in kept])
    above = sum(rank for rank, value in zip(doubled, kept, strict=True) if value > 0)
    counts = Counter({0: 1})
    for rank in doubled:
        shifted = Counter({total + rank: ways for total, ways in counts.items()})
        counts.update(shifted)
    tail = min(above, sum(doubled) - above)
    ways = sum(count for total, count in counts.items() if total <= tail)
    return min(1.0, 2 * ways / 2 ** len(kept)), len(kept)


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each, which is whole also where a mean of ranks is shared."""
    below = {value: sum(other < value for other in values) for value in set(values)}
    return [2 * below[value] + values.count(value) + 1 for value in values]
