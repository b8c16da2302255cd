"""ALFWorld: household tasks on the real text engine.

`world` assigns games to levels and splits, `games` reads them, `environment` is an episode, `engine` the text engine, here
or in `workers`. `memo` makes the engine fast, `translations` keeps what loading a game computes, `datalog` computes it
faster, `ahead` in advance. Experts: `search` plays from observations, `walkthrough` follows the stored solutions, `planner`
plans from any state.
"""

from spark_rl.environments.alfworld.environment import AlfworldEnvironment
from spark_rl.environments.alfworld.games import KINDS
from spark_rl.environments.alfworld.world import HELD_OUT, Alfworld

__all__ = ["HELD_OUT", "KINDS", "Alfworld", "AlfworldEnvironment"]
