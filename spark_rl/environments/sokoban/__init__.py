"""Sokoban: push every box onto a target. Pure Python, levels generated from their numbers, exact distances to the win.

`board` holds the rules, `rooms` generates levels, `search` computes the distance from a position to the win, `expert` plays
by these distances, and `world` is the environment that the command line uses.
"""

from spark_rl.environments.sokoban.board import Board, Room, Rules
from spark_rl.environments.sokoban.world import Sokoban

__all__ = ["Board", "Room", "Rules", "Sokoban"]
