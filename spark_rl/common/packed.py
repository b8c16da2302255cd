"""Sequences of numbers in few bytes, for what a forest holds by the million: token ids and log-probabilities.

Invariant: a packed sequence equals the tuple of its numbers, in comparisons and in hashes, and never changes.

A number takes 4 bytes (an id) or 8 (a float), where a tuple takes 36 and 32. The prompt of a step begins as that of the
step before it, so a sequence may begin with the first numbers of another one, which it holds by reference.
Pickle keeps the reference, and since a tree lists parents first, it never descends more than one step.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from spark_rl.common.prefix import shared_prefix

__all__ = ["Packed", "floats", "ids"]

ID, FLOAT = "i", "d"
N = TypeVar("N", int, float)


class Packed(Sequence[N]):
    """The first `kept` numbers of `above`, and then `new`."""

    __slots__ = ("above", "kept", "new")

    def __init__(self, new: array[N], above: Packed[N] | None = None, kept: int = 0) -> None:
        """Made by `ids` and `floats`."""
        self.new, self.above, self.kept = new, above, kept

    def numbers(self) -> array[N]:
        """All numbers, in an array of their own."""
        parts: list[array[N]] = []
        item, end = self, len(self)
        while True:
            parts.append(item.new[: max(end - item.kept, 0)])
            end = min(end, item.kept)
            if item.above is None or not end:
                break
            item = item.above
        whole = parts.pop()
        for part in reversed(parts):
            whole.extend(part)
        return whole

    def __len__(self) -> int:
        return self.kept + len(self.new)

    def __iter__(self) -> Iterator[N]:
        return iter(self.numbers())

    @overload
    def __getitem__(self, index: int) -> N: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[N, ...]: ...
    def __getitem__(self, index: int | slice) -> N | tuple[N, ...]:
        if isinstance(index, slice):
            return tuple(self.numbers()[index])
        return self.numbers()[index]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Packed | tuple) and tuple(self) == tuple(other))  # pyright: ignore[reportUnknownArgumentType]  of any numbers

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.new, self.above, self.kept)


def ids(numbers: Sequence[int], above: Sequence[int] = ()) -> Packed[int]:
    """Token ids, held as far as they agree with those of `above`, if that is packed, by reference to it."""
    if isinstance(numbers, Packed) and not above:
        return numbers
    if not isinstance(above, Packed):
        return Packed(array(ID, numbers))
    whole = array(ID, numbers)
    kept = shared_prefix(_view(whole), _view(above.numbers()))
    return Packed(whole[kept:], above, kept)


def floats(numbers: Sequence[float]) -> Packed[float]:
    """Numbers in double precision."""
    return numbers if isinstance(numbers, Packed) else Packed(array(FLOAT, numbers))


def _view(numbers: array[int]) -> NDArray[np.int32]:
    return np.frombuffer(numbers, np.int32)
