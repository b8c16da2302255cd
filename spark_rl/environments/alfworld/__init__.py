"""ALFWorld: household tasks on the real text engine.

`world` says which games are whose tasks, `games` where games come from, `environment` is an episode, `engine` the text
engine behind it and `memo` what makes it fast. Experts: `search` plays by what it reads, `walkthrough` the stored solutions,
`planner` from any state.
"""

from spark_rl.environments.alfworld.environment import AlfworldEnvironment
from spark_rl.environments.alfworld.games import KINDS
from spark_rl.environments.alfworld.world import HELD_OUT, Alfworld

__all__ = ["HELD_OUT", "KINDS", "Alfworld", "AlfworldEnvironment"]
