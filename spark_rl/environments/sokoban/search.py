"""The least number of moves to the win, for every position of a room that can be won.

Invariant: a position is in the table of `distances` exactly when some sequence of moves wins from it, and its number is
the length of the shortest such sequence.

The search is breadth-first and runs backwards from all solved positions: a predecessor puts the player back by one cell, and
pulls back the box if the move was a push. One search covers every position of the room, also those reached by mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

__all__ = ["cells", "distances", "reach", "state"]

_PLAYER = 7
"""Bits of a cell number, enough for sides of up to 11 cells."""


def cells(mask: int) -> Iterator[int]:
    """The cells of a set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def state(player: int, boxes: int) -> int:
    """Player and boxes as one number, the key of `distances`."""
    return boxes << _PLAYER | player


@lru_cache(maxsize=32)
def distances(size: int, floor: int, targets: int) -> dict[int, int]:
    """Least moves to the win by `state`; positions missing from the table are lost.

    A position takes about 100 bytes and 3 microseconds. Tables of the last 32 rooms are cached.
    """
    table = {state(cell, targets): 0 for cell in cells(floor & ~targets)}
    frontier, moves = list(table), 0
    ways = (-size, size, -1, 1)
    while frontier:
        moves += 1
        following: list[int] = []
        for key in frontier:
            boxes, player = key >> _PLAYER, key & (1 << _PLAYER) - 1
            free = floor & ~boxes
            for way in ways:
                before = player - way
                if not free >> before & 1:
                    continue
                walked = key + before - player
                if walked not in table:
                    table[walked] = moves
                    following.append(walked)
                if boxes >> player + way & 1:
                    pulled = (boxes ^ 1 << player ^ 1 << player + way) << _PLAYER | before
                    if pulled not in table:
                        table[pulled] = moves
                        following.append(pulled)
        frontier = following
    return table


def reach(size: int, free: int, start: int) -> dict[int, int]:
    """Least steps from a cell to each cell that the player can reach over free cells."""
    steps, frontier = {start: 0}, [start]
    while frontier:
        following: list[int] = []
        for cell in frontier:
            for ahead in (cell - size, cell + size, cell - 1, cell + 1):
                if free >> ahead & 1 and ahead not in steps:
                    steps[ahead] = steps[cell] + 1
                    following.append(ahead)
        frontier = following
    return steps
