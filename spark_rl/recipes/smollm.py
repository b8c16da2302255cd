"""What the recipes of SmolLM2-135M share, whatever the world: whole runs for a CPU with 2 cores and 16 GB."""

from __future__ import annotations

from spark_rl.advantage.group import GroupMean
from spark_rl.config.recipe import ColdStart, Evaluation, Keep, Optimizer, Recipe
from spark_rl.contracts import World
from spark_rl.models.weights import Weights
from spark_rl.objective.loss import Loss
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.types import Sampling, TreeShape

__all__ = ["smollm"]


def smollm(name: str, env: World, *, horizon: int, limit: int) -> Recipe:
    """SPARK with SmolLM2-135M-Instruct (`spark-rl model get smollm2-135m`), after a cold start on 300 expert paths.

    The number of demonstrations and the tree (8 leaves from 4 roots, B = 2) are the paper's; everything else is what a CPU
    can afford. Prompts are transcripts without instructions and lists of actions, and the task stands in the first turn
    alone: every token of a prompt is read, kept and trained on, and the cold start teaches the form of answers. One epoch
    without slips: on development tasks of the household world it won 38 of 80, and with slips at a fifth of the steps 26 of
    80. A step for each demonstration (`batch` 1) won 29 of 40 tasks, and one for every four 23. No divergence from a
    reference model: the paper's weight of 0.01 makes nothing of the 0.005 nats that it came to after four iterations, and
    the reference reads every token once more. The model computes in bfloat16, and 32-bit copies of its weights learn.
    Evaluation samples at the temperature of the rollouts, so that it measures the trained policy.

    Args:
        name: the recipe's name.
        env: its world.
        horizon: most steps of an episode.
        limit: most tokens of a prompt; nearly every episode should fit.
    """
    return Recipe(
        name=name,
        env=env,
        model="smollm2-135m",
        weights=Weights(dtype="bfloat16"),
        iterations=10,
        tasks_per_iteration=8,
        tree=TreeShape(horizon=horizon),
        prompt=Prompt(Transcript(), instructions="none", list_actions=False, limit=limit),
        sampling=Sampling(temperature=1.0, max_tokens=64),
        advantage=GroupMean(by_length=True),  # failures are twice as long as successes
        loss=Loss(kl=0.0, entropy=0.0),
        optimizer=Optimizer(learning_rate=4e-5, minibatches=2, token_budget=4096),
        cold_start=ColdStart(epochs=1, batch=1, learning_rate=3e-4),
        evaluation=Evaluation(levels=("L0", "L1"), temperature=1.0, every=0),
        keep=Keep(checkpoints=1),
    )
