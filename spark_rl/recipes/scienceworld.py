"""ScienceWorld: experiments on the original engine, on a laptop and as in the paper."""

from __future__ import annotations

from spark_rl.advantage.group import GroupMean
from spark_rl.environments.scienceworld import ScienceWorld
from spark_rl.fresh import FreshModel
from spark_rl.growth import Sampling, TreeShape
from spark_rl.loss import Loss
from spark_rl.prompting import Prompt, Transcript
from spark_rl.recipe import ColdStart, Evaluation, Optimizer, Recipe
from spark_rl.recipes.qwen import qwen

__all__ = ["SHORT", "scienceworld_qwen_1_5b", "scienceworld_qwen_7b", "scienceworld_tiny"]

SHORT = ("find-animal", "find-living-thing", "find-non-living-thing", "find-plant")
"""The types of the tiny recipe: find a thing of a kind, focus on it, move it to a box. Solutions take 3 to 16 steps."""


def scienceworld_tiny() -> Recipe:
    """A model from nothing on four of the shortest types of task, which have many variations; for a CPU.

    Settings are those of `household`. `--env.kinds` takes other types; most need more than so small a model
    can learn from a few hundred tasks.
    """
    return Recipe(
        name="scienceworld-tiny",
        env=ScienceWorld(kinds=SHORT),
        model=FreshModel(hidden=128, layers=2, heads=4, kv_heads=4, intermediate=256),
        level="L0",
        iterations=30,
        tasks_per_iteration=8,
        tree=TreeShape(budget=8, roots=4, horizon=16),
        prompt=Prompt(Transcript(repeat_task=True), instructions="none", list_actions=False, limit=4096),
        sampling=Sampling(temperature=1.0, max_tokens=48),
        advantage=GroupMean(by_length=True),  # failures are twice as long as successes
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
        evaluation=Evaluation(levels=("L0", "L1"), temperature=1.0, every=0, dev_level="L1", dev_tasks=0),
    )


def scienceworld_qwen_1_5b() -> Recipe:
    """The paper's setting (`qwen`), but for longer prompts: observations reach 1,900 characters, names of objects 1,000.

    The engine's `easy` simplifications and 100 ticks are those of the released scripts; success is score 100 (theirs:
    `--env.success won`). For L2 train again with `--level L2 --evaluation.levels L2`.
    """
    return qwen("scienceworld-qwen-1-5b", ScienceWorld(heap=1024), "1.5B", Prompt(limit=4096))


def scienceworld_qwen_7b() -> Recipe:
    """As `scienceworld_qwen_1_5b`, with Qwen2.5-7B-Instruct."""
    return qwen("scienceworld-qwen-7b", ScienceWorld(heap=1024), "7B", Prompt(limit=4096))
