"""ALFWorld: real games on the real text engine, on a laptop and as in the paper."""

from __future__ import annotations

from spark_rl.environments.alfworld import Alfworld
from spark_rl.fresh import FreshModel
from spark_rl.growth import Sampling, TreeShape
from spark_rl.loss import Loss
from spark_rl.prompting import Prompt, Transcript
from spark_rl.recipe import ColdStart, Evaluation, Optimizer, Recipe
from spark_rl.recipes.qwen import qwen

__all__ = ["alfworld_qwen_1_5b", "alfworld_qwen_7b", "alfworld_tiny"]


def alfworld_tiny() -> Recipe:
    """A model from nothing on real ALFWorld games, after a cold start on their expert paths; for a CPU."""
    return Recipe(
        name="alfworld-tiny",
        env=Alfworld(engines=64, solver="walkthrough"),  # as many engines as games are played at once
        model=FreshModel(vocabulary=2048, hidden=96, layers=3, heads=3, kv_heads=3, intermediate=288),
        level="L0",
        iterations=10,
        tasks_per_iteration=4,
        tree=TreeShape(budget=8, roots=4, horizon=30),
        prompt=Prompt(Transcript(repeat_task=True), instructions="none", list_actions=False, limit=3072),
        sampling=Sampling(temperature=0.7, max_tokens=48),
        loss=Loss(kl=0.01, entropy=0.0),
        optimizer=Optimizer(learning_rate=3e-4),
        cold_start=ColdStart(
            demonstrations=200,
            tags="dense",  # a walkthrough goes straight to its object: few of its steps are open choices
            epochs=8,
            batch=4,
            learning_rate=3e-3,
            prompt_weight=0.3,
            optimizer="muon",
            muon_learning_rate=0.02,  # few steps to learn a language in: 14 of 134 unseen games won, at 0.005 6
        ),
        evaluation=Evaluation(levels=("L1",), temperature=0.4, every=0),
    )


def alfworld_qwen_1_5b() -> Recipe:
    """The paper's setting (`qwen`). For L2 train again with `--level L2 --evaluation.levels L2`."""
    return qwen("alfworld-qwen-1-5b", Alfworld(engines=64), "1.5B")


def alfworld_qwen_7b() -> Recipe:
    """As `alfworld_qwen_1_5b`, with Qwen2.5-7B-Instruct."""
    return qwen("alfworld-qwen-7b", Alfworld(engines=64), "7B")
