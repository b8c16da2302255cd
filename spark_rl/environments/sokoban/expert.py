"""The expert: it plays a shortest solution from any position, and plans in pushes.

Its reason names the box and the direction of the push, the cell to push from, and the next cell on the path to that cell.
Only the first step and steps right after a push can be choices, because the expert chooses its next push there.
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
"""Most extra moves, compared with the best push, with which a push counts as nearly as good."""


@dataclass(frozen=True, slots=True)
class Push:
    """A box that can be pushed."""

    box: int
    move: str
    stand: int
    """Cell from which the player pushes the box."""
    walk: int
    """Moves that the player needs to reach the cell `stand`."""
    total: int | None
    """Moves to the win, walk and push included; None if the push makes the board lost."""


def pushes(board: Board) -> Iterator[Push]:
    """All pushes that the player can reach."""
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
    """The next move of a shortest solution; equally short ones are drawn at random.

    The step is an open choice if a new push is chosen here, and several are nearly as good or one makes the board lost.
    """
    options = list(pushes(board))
    totals = [push.total for push in options if push.total is not None]
    if not totals:
        return Decision(rng.choice(board.actions() or MOVES), "A box is stuck, so this cannot be won any more.")
    best = min(totals)
    push = rng.choice([push for push in options if push.total == best])
    several = sum(total <= best + _NEARLY for total in totals) > 1
    choice = board.fresh and (several or len(totals) < len(options))
    left = reach(board.room.size, board.room.floor & ~board.boxes, push.stand)
    nearer = [move for move, way in board.room.ways().items() if left.get(board.player + way) == push.walk - 1]
    return _decision(board, push, rng.choice(nearer) if push.walk else push.move, choice)


def _decision(board: Board, push: Push, move: str, choice: bool = False) -> Decision:
    """The decision; its reason names the push, then the cell to push from, then the next cell, each given the one before."""
    ahead = board.player + board.room.ways()[move]
    box, stand, here, there = (place(cell, board.room.size) for cell in (push.box, push.stand, board.player, ahead))
    reason = f"To push box {box} {push.move} I stand at {stand}. I go from {here} to {there}."
    return Decision(move, reason, choice, choice)


def slip(board: Board) -> Decision | None:
    """A push that is possible at once, is not the best one, and does not lose; None if there is none."""
    winning = [push for push in pushes(board) if push.total is not None]
    best = min((push.total for push in winning if push.total is not None), default=None)
    for push in winning:
        if push.walk == 0 and push.total != best:
            return _decision(board, push, push.move)
    return None
