"""Intervals of shares and Pass@k: pure functions of counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["clustered", "pass_at", "wilson"]


def wilson(wins: float, total: float, z: float = 1.96) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson score); (0, 1) when `total` is 0."""
    if total == 0:
        return 0.0, 1.0
    share = wins / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def clustered(wins: Sequence[int], samples: int) -> tuple[float, float]:
    """95 % confidence interval of the success rate on tasks that were each played several times.

    Samples of one task are correlated, so that they carry less information than as many tasks. The number of episodes is
    divided by the design effect 1 + (samples - 1) * rho (Kish 1965). Here rho is the intraclass correlation, estimated by
    analysis of variance within [0, 1] (Ridout, Demetrio and Firth, Biometrics 55, 1999). The interval is the Wilson interval
    of the resulting number. It is never wider than the interval of the tasks alone, and equals that interval at one sample
    or where all samples of a task agree.

    Args:
        wins: successes of each task, from 0 to `samples`.
        samples: episodes of each task.
    """
    tasks, total = len(wins), sum(wins)
    rho = 1.0  # with one task, or with all results equal, samples may be copies
    if tasks > 1 and samples > 1 and 0 < total < tasks * samples:
        mean = total / tasks
        between = sum((won - mean) ** 2 for won in wins) / (samples * (tasks - 1))
        within = sum(won * (samples - won) for won in wins) / (samples * tasks * (samples - 1))
        rho = min(1.0, max(0.0, (between - within) / (between + (samples - 1) * within)))
    effect = 1 + (samples - 1) * rho
    return wilson(total / effect, tasks * samples / effect)


def pass_at(k: int, samples: int, wins: int) -> float:
    """Pass@k of one task: the chance that k of its `samples`, of which `wins` succeeded, include a success.

    It is unbiased for k new samples (Chen et al., arXiv 2107.03374, Eq. 1).

    Raises:
        ValueError: k is not from 1 to `samples`.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k is {k}, and must be from 1 to {samples}")
    return 1 - math.comb(samples - wins, k) / math.comb(samples, k)
