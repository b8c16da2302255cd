"""Levels and splits: their names, and a rule for worlds that make their tasks up.

Invariant: which of train, dev and test a problem may belong to is a function of the problem alone, so no two share one.
"""

from __future__ import annotations

from spark_rl.common.seeding import derive
from spark_rl.errors import unknown_name
from spark_rl.types import Split

__all__ = ["LEVELS", "SPLITS", "check_names", "split_of"]

LEVELS = ("L0", "L1", "L2")
SPLITS = ("train", "dev", "test")
_SHARES: tuple[Split, ...] = ("train", "train", "train", "train", "train", "train", "dev", "test")


def check_names(level: str, split: str) -> None:
    """Refuse a level or a split that there is not.

    Raises:
        UsageError: names the known ones.
    """
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)


def split_of(*problem: int | str | tuple[int, ...], trained: bool = True) -> Split:
    """The split that a problem belongs to: an eighth each to dev and test, or half each where it is of no training split."""
    shares = _SHARES if trained else _SHARES[-2:]
    return shares[derive(*problem) % len(shares)]
