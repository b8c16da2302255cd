"""The expert: always on a shortest way to the win, from wherever it is, thinking in pushes.

It says which box it pushes which way, where it has to stand for that, and the next cell on the way. A step is a choice
where the step before has pushed, or is the first: there the next push is decided on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from spark_rl.environments.searching import Decision
from spark_rl.environments.sokoban.board import MOVES, Board, place
from spark_rl.environments.sokoban.search import cells, distances, reach, state

__all__ = ["Push", "decide", "pushes", "slip"]

_NEARLY = 2
"""Moves that a push may cost more than the best one and still be nearly as good."""


@dataclass(frozen=True, slots=True)
class Push:
    """A box that can be pushed."""

    box: int
    move: str
    stand: int
    """Cell it is pushed from."""
    walk: int
    """Moves to that cell."""
    total: int | None
    """Moves to the win, walk and push included; None where nothing wins after it."""


def pushes(board: Board) -> Iterator[Push]:
    """All pushes that the player can get to."""
    room = board.room
    free = room.floor & ~board.boxes
    walks = reach(room.size, free, board.player)
    table = distances(room.size, room.floor, room.targets)
    for box in cells(board.boxes):
        for move, way in room.ways().items():
            if box - way in walks and free >> box + way & 1:
                walk = walks[box - way]
                rest = table.get(state(box, board.boxes ^ 1 << box ^ 1 << box + way))
                yield Push(box, move, box - way, walk, None if rest is None else walk + 1 + rest)


def decide(board: Board, rng: random.Random) -> Decision:
    """The next move of a shortest way; a draw among equals.

    The choice is open where the next push is decided on, and several are nearly as good or one would lose for good.
    """
    found = list(pushes(board))
    totals = [push.total for push in found if push.total is not None]
    if not totals:
        return Decision(rng.choice(board.actions() or MOVES), "A box is stuck, so this cannot be won any more.")
    best = min(totals)
    push = rng.choice([push for push in found if push.total == best])
    several = sum(total <= best + _NEARLY for total in totals) > 1
    choice = board.fresh and (several or len(totals) < len(found))
    left = reach(board.room.size, board.room.floor & ~board.boxes, push.stand)
    nearer = [move for move, way in board.room.ways().items() if left.get(board.player + way) == push.walk - 1]
    return _decision(board, push, rng.choice(nearer) if push.walk else push.move, choice)


def _decision(board: Board, push: Push, move: str, choice: bool = False) -> Decision:
    """The push, where one stands for it, and the next cell on the way: each follows from what was said before it."""
    ahead = board.player + board.room.ways()[move]
    box, stand, here, there = (place(cell, board.room.size) for cell in (push.box, push.stand, board.player, ahead))
    reason = f"To push box {box} {push.move} I stand at {stand}. I go from {here} to {there}."
    return Decision(move, reason, choice, choice)


def slip(board: Board) -> Decision | None:
    """A push that is at hand, is no step of a shortest way, and does not lose."""
    found = [push for push in pushes(board) if push.total is not None]
    best = min((push.total for push in found if push.total is not None), default=None)
    for push in found:
        if push.walk == 0 and push.total != best:
            return _decision(board, push, push.move)
    return None
