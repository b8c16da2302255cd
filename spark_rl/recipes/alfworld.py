"""ALFWorld: real games on the real text engine, on a laptop and as in the paper."""

from __future__ import annotations

from spark_rl.advantage.group import GroupMean
from spark_rl.environments.alfworld import Alfworld
from spark_rl.fresh import FreshModel
from spark_rl.growth import Sampling, TreeShape
from spark_rl.loss import Loss
from spark_rl.prompting import Prompt, Transcript
from spark_rl.recipe import ColdStart, Evaluation, Optimizer, Recipe
from spark_rl.recipes.qwen import qwen

__all__ = ["alfworld_qwen_1_5b", "alfworld_qwen_7b", "alfworld_tiny"]


def alfworld_tiny() -> Recipe:
    """A model from nothing on real ALFWorld games, after a cold start on a searching expert's paths; for a CPU.

    Settings are those of `household`, but for the horizon. Making the 1,500 demonstrations takes most of the cold start's
    time; `spark-rl demos alfworld --recipe alfworld-tiny --count 1500` writes them once for many runs (`cold_start.data`).
    """
    return Recipe(
        name="alfworld-tiny",
        env=Alfworld(engines=64),  # as many engines as games are played at once
        model=FreshModel(hidden=128, layers=2, heads=4, kv_heads=4, intermediate=256),
        level="L0",
        iterations=10,
        tasks_per_iteration=8,
        tree=TreeShape(budget=8, roots=4, horizon=30),
        prompt=Prompt(Transcript(repeat_task=True), instructions="none", list_actions=False, limit=3072),
        sampling=Sampling(temperature=1.0, max_tokens=48),
        advantage=GroupMean(by_length=True),  # failures are three times as long as successes
        loss=Loss(kl=0.01, entropy=0.0),
        optimizer=Optimizer(learning_rate=1.5e-4, minibatches=2),
        cold_start=ColdStart(
            demonstrations=1500,
            slips=0.2,
            epochs=2,
            batch=2,
            learning_rate=3e-3,
            prompt_weight=0.3,
            optimizer="muon",
        ),
        evaluation=Evaluation(levels=("L0", "L1"), temperature=1.0, every=0, dev_tasks=50),
    )


def alfworld_qwen_1_5b() -> Recipe:
    """The paper's setting (`qwen`). For L2 train again with `--level L2 --evaluation.levels L2`."""
    return qwen("alfworld-qwen-1-5b", Alfworld(engines=64), "1.5B")


def alfworld_qwen_7b() -> Recipe:
    """As `alfworld_qwen_1_5b`, with Qwen2.5-7B-Instruct."""
    return qwen("alfworld-qwen-7b", Alfworld(engines=64), "7B")
