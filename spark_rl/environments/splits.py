"""Levels and splits: their names, and the rule by which worlds split generated problems.

Invariant: the split of a problem depends on the problem alone, so no problem is in two of train, dev and test.
"""

from __future__ import annotations

import hashlib

from spark_rl.common.seeding import derive
from spark_rl.errors import unknown_name
from spark_rl.types import Split

__all__ = ["LEVELS", "SPLITS", "check_names", "draw", "split_of"]

LEVELS = ("L0", "L1", "L2")
SPLITS = ("train", "dev", "test")
_SHARES: tuple[Split, ...] = ("train", "train", "train", "train", "train", "train", "dev", "test")


def check_names(level: str, split: str) -> None:
    """Refuse an unknown level or split.

    Raises:
        UsageError: the level or split is unknown; the message lists the known ones.
    """
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)


def split_of(*problem: int | str | tuple[int, ...], trained: bool = True) -> Split:
    """The split of a problem.

    Args:
        problem: what makes the problem different from others.
        trained: whether there is a training split: dev and test then get an eighth of the problems each, else half each.
    """
    shares = _SHARES if trained else _SHARES[-2:]
    return shares[derive(*problem) % len(shares)]


def draw(task_id: str) -> bytes:
    """A sort key that mixes tasks of all types, in an order that is the same everywhere."""
    return hashlib.sha256(task_id.encode()).digest()
