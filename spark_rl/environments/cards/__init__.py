"""Short games of cards and numbers: EZPoints, NumberLine and Blackjack, in text and in pure Python.

Each module holds one game: its positions, its exact expert and its world.
"""

from spark_rl.environments.cards.blackjack import Blackjack
from spark_rl.environments.cards.ezpoints import EZPoints
from spark_rl.environments.cards.numberline import NumberLine

__all__ = ["Blackjack", "EZPoints", "NumberLine"]
