"""Checks that several branching rules share."""

from __future__ import annotations

from spark_rl.errors import UsageError

__all__ = ["check_width"]


def check_width(width: int) -> None:
    """Refuse a branching factor that gives no fork.

    Raises:
        UsageError: the branching factor is below 2.
    """
    if width < 2:
        raise UsageError(f"branching.width is {width}: a fork needs at least 2 continuations")
