"""Credit of your own: a step is judged by the best outcome that it still led to. Run this file to see what it gives.

Wherever the command line takes the name of an estimator, it takes `custom_advantage:BestBelow` as well, when this folder
is on the PYTHONPATH.
"""

import asyncio
from dataclasses import dataclass

from spark_rl.advantage.credit import per_node
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.contracts import Growth
from spark_rl.environments.household import Household
from spark_rl.objective.rewards import Rewards
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_tree
from spark_rl.types import Credit, Sampling, Tree, TreeShape


@dataclass(frozen=True)
class BestBelow:
    strength: float = 1.0

    def __call__(self, tree: Tree) -> Credit:
        best = [float("-inf")] * len(tree.nodes)
        for leaf, outcome in zip(tree.leaves(), tree.returns(), strict=True):
            for node in tree.trajectory(leaf):
                best[node] = max(best[node], outcome)
        mean = sum(best) / len(best)
        return per_node([self.strength * (value - mean) for value in best])


if __name__ == "__main__":
    world = Household(train_tasks=1)
    growth = Growth(TreeShape(budget=8, roots=4, horizon=12), ExploreTag(), Prompt(), Sampling())
    tree = asyncio.run(grow_tree(world.task("L0/train/0"), world, world.expert("dense"), growth, seed=1))
    credit = Rewards().credit(tree, BestBelow())
    steps = zip(tree.nodes, credit.positive, credit.negative, strict=True)
    for node, up, down in sorted(steps, key=lambda step: step[0].path):  # a branch at a time
        print(f"{' ' * node.depth}{node.action:40} {up + down:+.2f}")
