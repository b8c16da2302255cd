"""Rooms and starting positions, generated with a random number generator.

Invariants
----------
* Every level can be won; its shortest solution has between `least` and `most` moves; no box starts on a target.
* Two levels that a rotation or a reflection turns into one another have the same `canonical` form.
* A room is small enough for `search.distances`: rooms with more boxes have fewer floor cells.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from math import comb

from spark_rl.environments.sokoban.board import Board, Room, Rules
from spark_rl.environments.sokoban.search import cells, distances, state

__all__ = ["canonical", "carve", "starts"]

_POSITIONS = 120_000
"""Most positions of a room; searching that many takes about a third of a second and 12 MB."""
_FULLNESS = (0.55, 0.85)
"""Least and greatest share of floor among the cells inside the outer wall."""


def carve(size: int, boxes: int, rng: random.Random) -> Room:
    """A connected room, grown cell by cell, with as many targets as boxes."""
    inside = [row * size + column for row in range(1, size - 1) for column in range(1, size - 1)]
    most = max(count for count in range(len(inside) + 1) if count * comb(max(count - 1, 0), boxes) <= _POSITIONS)
    wanted = min(most, round(rng.uniform(*_FULLNESS) * len(inside)))
    grown = [rng.choice(inside)]
    edge: list[int] = []
    while len(grown) < wanted:
        cell = grown[-1]
        edge += [n for n in (cell - size, cell + size, cell - 1, cell + 1) if n in inside and n not in grown + edge]
        grown.append(edge.pop(rng.randrange(len(edge))))
    targets = rng.sample(sorted(grown), boxes)
    return Room(size, sum(1 << cell for cell in grown), sum(1 << cell for cell in targets))


def starts(room: Room, least: int, most: int, rng: random.Random, rules: Rules) -> Iterator[Board]:
    """Starting positions in random order; every solution length is equally likely, however few positions have it."""
    by_length: dict[int, list[int]] = {}
    for key, moves in distances(room.size, room.floor, room.targets).items():
        if least <= moves <= most and not _parts(key)[1] & room.targets:
            by_length.setdefault(moves, []).append(key)
    lengths = sorted(by_length)
    for keys in by_length.values():
        keys.sort()
    while lengths:
        length = rng.choice(lengths)
        keys = by_length[length]
        yield Board(room, *_parts(keys.pop(rng.randrange(len(keys)))), rules)
        if not keys:
            lengths.remove(length)


def _parts(key: int) -> tuple[int, int]:
    """Player and boxes of a `search.state`."""
    boxes = key >> state(0, 1).bit_length() - 1
    return key - state(0, boxes), boxes


def canonical(size: int, *masks: int) -> tuple[int, ...]:
    """The least of the eight forms that rotations and reflections give these sets of cells."""
    return min(tuple(sum(1 << turned[cell] for cell in cells(mask)) for mask in masks) for turned in _symmetries(size))


@lru_cache(maxsize=16)
def _symmetries(size: int) -> tuple[tuple[int, ...], ...]:
    """The new number of each cell, for each rotation and reflection of the square."""
    last = size - 1
    grid = [divmod(cell, size) for cell in range(size * size)]
    forms = [
        grid,
        [(column, last - row) for row, column in grid],
        [(last - row, last - column) for row, column in grid],
        [(last - column, row) for row, column in grid],
    ]
    forms += [[(column, row) for row, column in form] for form in forms]
    return tuple(tuple(row * size + column for row, column in form) for form in forms)
