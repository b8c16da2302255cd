"""Sokoban: push every box onto a target. Pure Python, levels made from their numbers, exact distances to the win.

`board` is the game, `rooms` makes levels, `search` knows how far a position is from the win, `expert` plays by it, and
`world` is what the command line sees.
"""

from spark_rl.environments.sokoban.board import Board, Room, Rules
from spark_rl.environments.sokoban.world import Sokoban

__all__ = ["Board", "Room", "Rules", "Sokoban"]
