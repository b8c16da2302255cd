"""ScienceWorld: experiments of primary-school science, on the original engine in a Java process.

`catalogue` says which variations are whose tasks, `world` is what the command line sees, `environment` an episode, `engine`
the worlds behind it, rebuilt where they are lost, and `jvm` the processes that hold them. `java/` is the helper that runs
there: many worlds in a process, and exact copies of a world. `gold` has the engine's own solutions and who follows them.
"""

from spark_rl.environments.scienceworld.catalogue import HELD_OUT, KINDS
from spark_rl.environments.scienceworld.environment import ScienceWorldEnvironment
from spark_rl.environments.scienceworld.world import ScienceWorld

__all__ = ["HELD_OUT", "KINDS", "ScienceWorld", "ScienceWorldEnvironment"]
