"""A rule of your own: fork where the agent has gone in a circle, back in a state it has been in. Run this file to see.

Wherever the command line takes the name of a rule, it takes `custom_branching:Astray` as well, when this folder is on the
PYTHONPATH.
"""

import asyncio
import random
from dataclasses import dataclass

from spark_rl.contracts import Growth
from spark_rl.environments.household import Household
from spark_rl.policies.scripted import RandomActions
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_tree
from spark_rl.types import Forest, Fork, Sampling, Tree, TreeShape


@dataclass(frozen=True)
class Astray:
    extra: int = 1

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        *before, here = (tree.nodes[step].state_key for step in tree.trajectory(node))
        return Fork(index, node, "decision", self.extra) if here in before else None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        return []  # called when all trajectories have ended: rules that look at outcomes wish here


if __name__ == "__main__":
    world = Household(train_tasks=1)
    growth = Growth(TreeShape(budget=8, roots=4, horizon=20), Astray(), Prompt(), Sampling())
    tree = asyncio.run(grow_tree(world.task("L0/train/0"), world, RandomActions(), growth, seed=1))
    for step in (tree.nodes[fork.node] for fork in tree.forks if fork.node is not None):
        print(f"forked at step {step.depth}, in {step.state_key}")
    print(f"{len(tree.leaves())} trajectories of {len(tree.nodes)} steps in all")
