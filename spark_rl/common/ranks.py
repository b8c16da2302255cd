"""One process as its own only rank, and sums over ranks. `scale.group` has the ranks of several processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from spark_rl.contracts import Ranks

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ALONE", "combined", "mine", "spread"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Alone:
    """A process without others."""

    rank: int = 0
    count: int = 1

    def gather(self, value: T) -> list[T]:
        """The value itself."""
        return [value]

    def add(self, tensors: Iterable[Tensor]) -> None:
        """The sums are the tensors themselves."""


ALONE: Ranks = _Alone()


def mine(index: int, ranks: Ranks) -> bool:
    """Whether the item with this number is this rank's, where items are dealt out in turn."""
    return index % ranks.count == ranks.rank


def spread(sizes: Sequence[int], ranks: Ranks) -> list[list[int]]:
    """Items for each rank, the largest first, each to the rank with the least so far. The same on every rank."""
    chosen: list[list[int]] = [[] for _ in range(ranks.count)]
    load = [0] * ranks.count
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        lightest = load.index(min(load))
        chosen[lightest].append(index)
        load[lightest] += sizes[index]
    return chosen


def combined(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Figures of several parts as those of the whole: sums, and maxima where a name ends in `_max`."""
    total: dict[str, float] = {}
    for part in parts:
        for name, number in part.items():
            before = total.get(name, 0.0)
            total[name] = max(before, number) if name.endswith("_max") else before + number
    return total
