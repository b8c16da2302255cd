"""ScienceWorld: experiments on the original engine, on a laptop and as in the paper."""

from __future__ import annotations

from dataclasses import replace

from spark_rl.environments.scienceworld import ScienceWorld
from spark_rl.fresh import FreshModel
from spark_rl.growth import Sampling, TreeShape
from spark_rl.loss import Loss
from spark_rl.prompting import Prompt, Transcript
from spark_rl.recipe import ColdStart, Evaluation, Optimizer, Recipe

__all__ = ["SHORT", "scienceworld_qwen_1_5b", "scienceworld_qwen_7b", "scienceworld_tiny"]

SHORT = ("find-animal", "find-living-thing", "find-non-living-thing", "find-plant")
"""The types of the tiny recipe: find a thing of a kind, focus on it, move it to a box. Solutions take 3 to 16 steps."""


def scienceworld_tiny() -> Recipe:
    """A model from nothing on the four shortest types of task with many variations, after a cold start; for a CPU.

    Other types need more than a model of half a million parameters can learn from a few hundred demonstrations. Gains of
    score are paid, since few trajectories of a fresh model come to the end. `--env.kinds` takes other types.
    """
    return Recipe(
        name="scienceworld-tiny",
        env=ScienceWorld(kinds=SHORT, reward="score"),
        model=FreshModel(vocabulary=2048, hidden=96, layers=3, heads=3, kv_heads=3, intermediate=288),
        level="L0",
        iterations=10,
        tasks_per_iteration=4,
        tree=TreeShape(budget=8, roots=4, horizon=16),
        prompt=Prompt(Transcript(repeat_task=True), instructions="none", list_actions=False, limit=4096),
        sampling=Sampling(temperature=0.7, max_tokens=56),
        loss=Loss(kl=0.01, entropy=0.0),
        optimizer=Optimizer(learning_rate=3e-4),
        cold_start=ColdStart(
            demonstrations=500,
            epochs=8,
            batch=4,
            learning_rate=3e-3,
            prompt_weight=0.3,
            optimizer="muon",
            muon_learning_rate=0.02,
        ),
        evaluation=Evaluation(levels=("L0", "L1"), temperature=0.4, every=0, dev_level="L1"),
    )


def scienceworld_qwen_1_5b() -> Recipe:
    """The paper's setting (arXiv 2601.20209, Section 4 and Appendix B) with Qwen2.5-1.5B-Instruct; for GPUs.

    As `alfworld_qwen_1_5b`: 120 iterations of 16 tasks, N = 8 leaves from M = 4 roots, B = 2, horizon 30, prompts with the
    last five steps, answers of at most 512 tokens, a cold start on 300 expert paths, lr 1e-6, KL 0.01, temperature 0.4. The
    engine's `easy` simplifications and 100 ticks are those of the released scripts; success is score 100 (theirs:
    `--env.success won`). Prompts may be longer: observations reach 1,900 characters, and names of objects 1,000. For L2
    train again with `--level L2 --evaluation.levels L2`.
    """
    return Recipe(
        name="scienceworld-qwen-1-5b",
        env=ScienceWorld(heap=1024),
        model="Qwen/Qwen2.5-1.5B-Instruct",
        prompt=Prompt(limit=4096),
        sampling=Sampling(temperature=0.4, max_tokens=512),
        optimizer=Optimizer(learning_rate=1e-6, minibatches=8),
        evaluation=Evaluation(levels=("L0", "L1"), temperature=0.4, every=5),
        cache_gb=16.0,
    )


def scienceworld_qwen_7b() -> Recipe:
    """As `scienceworld_qwen_1_5b`, with Qwen2.5-7B-Instruct."""
    return replace(scienceworld_qwen_1_5b(), name="scienceworld-qwen-7b", model="Qwen/Qwen2.5-7B-Instruct")
