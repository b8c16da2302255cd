"""The rules of Sokoban on immutable boards, and the text of a board.

Invariants
----------
* The player moves to a neighbouring cell. A box in that cell is pushed one cell on, if the next cell is free floor.
  Boxes are never pulled, removed or added.
* A board is solved when every target has a box; this ends the episode. Success does not depend on the reward option.
* The text of a board does not reveal whether the board can still be won.

A cell is a number, row x size + column, the outer wall included; a set of cells is an integer with one bit for each cell.
`Room`, `player` and `boxes` hold everything that an image of the board would need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from spark_rl.environments.sokoban.search import cells, distances, state

__all__ = ["MOVES", "Board", "Room", "Rules", "place", "read"]

MOVES = ("up", "down", "left", "right")


@dataclass(frozen=True, slots=True)
class Room:
    """The fixed part of a board: a square with an outer wall, its floor and its targets."""

    size: int
    """Cells along a side, the outer wall included."""
    floor: int
    """Cells that are not wall, targets included."""
    targets: int

    def ways(self) -> dict[str, int]:
        """The change of the cell number for each move."""
        return _ways(self.size)


@lru_cache(maxsize=16)
def _ways(size: int) -> dict[str, int]:
    return dict(zip(MOVES, (-size, size, -1, 1), strict=True))


@dataclass(frozen=True, slots=True)
class Rules:
    """The options for reward, end of the episode, and text of the board."""

    reward: Literal["success", "score"] = "success"
    view: Literal["grid", "list", "both"] = "grid"
    end_lost: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """A position of the game."""

    room: Room
    player: int
    boxes: int
    rules: Rules = Rules()
    reward: float = 0.0
    fresh: bool = True
    """Whether the player chooses a new push here: true at the start and right after a push."""

    @property
    def won(self) -> bool:
        """Whether every target has a box."""
        return self.boxes == self.room.targets

    @property
    def lost(self) -> bool:
        """Whether no sequence of moves wins any more (exact, not a heuristic)."""
        return state(self.player, self.boxes) not in distances(self.room.size, self.room.floor, self.room.targets)

    @property
    def done(self) -> bool:
        """Whether the board is won, or, with `Rules.end_lost`, lost."""
        return self.won or (self.rules.end_lost and self.lost)

    @property
    def idle(self) -> float:
        """Reward of a refused move, which costs as much as a move."""
        return -0.1 if self.rules.reward == "score" else 0.0

    @property
    def progress(self) -> Mapping[str, float]:
        """Share of the boxes that are on a target."""
        return {"boxes": (self.boxes & self.room.targets).bit_count() / self.boxes.bit_count()}

    @property
    def text(self) -> str:
        """The board as text, in the form that `Rules.view` names."""
        grid = _grid(self) if self.rules.view != "list" else ""
        listed = _listed(self) if self.rules.view != "grid" else ""
        return "\n".join(filter(None, (grid, listed)))

    def actions(self) -> tuple[str, ...]:
        """Moves that are not blocked."""
        return tuple(move for move in MOVES if self.after(move) is not None)

    def after(self, action: str) -> Board | None:
        """The board after a move; None for a blocked or unknown one."""
        way = self.room.ways().get(action)
        if way is None or self.done:
            return None
        room, ahead, beyond = self.room, self.player + way, self.player + 2 * way
        if not room.floor >> ahead & 1:
            return None
        boxes, gain = self.boxes, 0
        if pushed := bool(boxes >> ahead & 1):
            if not room.floor >> beyond & 1 or boxes >> beyond & 1:
                return None
            boxes ^= 1 << ahead | 1 << beyond
            gain = (room.targets >> beyond & 1) - (room.targets >> ahead & 1)
        solved = boxes == room.targets
        reward = float(solved) if self.rules.reward == "success" else self.idle + gain + 10 * solved
        return Board(room, ahead, boxes, self.rules, reward, pushed)


def place(cell: int, size: int) -> str:
    """Row and column of a cell as two digits, counted from 0."""
    return f"{cell // size}{cell % size}"


def _grid(board: Board) -> str:
    room = board.room
    return "\n".join(
        " ".join(_symbol(board, row * room.size + column) for column in range(room.size)) for row in range(room.size)
    )


def _symbol(board: Board, cell: int) -> str:
    bit = 1 << cell
    if not board.room.floor & bit:
        return "#"
    kind = 2 if board.player == cell else int(bool(board.boxes & bit))
    return (".XP", "O*S")[bool(board.room.targets & bit)][kind]


def _listed(board: Board) -> str:
    """The player, boxes, targets and inner walls, each with its cell."""
    size, room = board.room.size, board.room
    inner = sum(((1 << (size - 2)) - 1) << (row * size + 1) for row in range(1, size - 1))
    sorts = (("box", board.boxes), ("target", room.targets), ("wall", inner & ~room.floor))
    names = [f"player {place(board.player, size)}"]
    names += [f"{noun} {place(cell, size)}" for noun, mask in sorts for cell in cells(mask)]
    return ", ".join(names)


def read(text: str, rules: Rules = Rules()) -> Board:
    """The board of a square grid: `#` wall, `.` floor, `O` target, `X` box, `*` box on target, `P` player, `S` on target.

    Raises:
        ValueError: the grid is not square, its edge is open, or it lacks one player and as many boxes as targets.
    """
    rows = ["".join(line.split()) for line in text.strip().splitlines()]
    size = len(rows)
    symbols = "".join(rows)
    if any(len(row) != size for row in rows) or set(symbols) - set("#.OX*PS"):
        raise ValueError("the grid is not a square of # . O X * P S")
    floor, targets, boxes, players = (_bits(symbols, chosen) for chosen in (".OX*PS", "O*S", "X*", "PS"))
    edge = (cell for cell in range(size * size) if cell // size in (0, size - 1) or cell % size in (0, size - 1))
    if any(floor >> cell & 1 for cell in edge) or size < 3:
        raise ValueError("the grid's edge is not all wall")
    if players.bit_count() != 1 or not boxes.bit_count() == targets.bit_count() > 0:
        raise ValueError("the grid has not one player and as many boxes as targets")
    return Board(Room(size, floor, targets), players.bit_length() - 1, boxes, rules)


def _bits(symbols: str, chosen: str) -> int:
    return sum(1 << cell for cell in _where(symbols, chosen))


def _where(symbols: str, chosen: str) -> Iterator[int]:
    return (cell for cell, symbol in enumerate(symbols) if symbol in chosen)
