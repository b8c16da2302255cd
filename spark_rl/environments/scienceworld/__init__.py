"""ScienceWorld: experiments of primary-school science, on the original engine in a Java process.

`catalogue` assigns variations to levels and splits, `world` has the options, `environment` is an episode, `engine` holds the
worlds of episodes and rebuilds lost ones, and `jvm` runs the Java processes. `java/` is the helper inside such a process: it
holds many worlds and makes exact copies of a world. `gold` has the engine's own solutions and the expert that follows them.
"""

from spark_rl.environments.scienceworld.catalogue import HELD_OUT, KINDS
from spark_rl.environments.scienceworld.environment import ScienceWorldEnvironment
from spark_rl.environments.scienceworld.world import ScienceWorld

__all__ = ["HELD_OUT", "KINDS", "ScienceWorld", "ScienceWorldEnvironment"]
