"""ScienceWorld: experiments on the original engine, on a laptop and as in the paper."""

from __future__ import annotations

from dataclasses import replace

from spark_rl.config.recipe import Keep, Recipe
from spark_rl.environments.scienceworld import ScienceWorld
from spark_rl.prompting.prompt import Prompt
from spark_rl.recipes.household import household
from spark_rl.recipes.qwen import qwen
from spark_rl.recipes.smollm import smollm

__all__ = ["SHORT", "scienceworld_qwen_1_5b", "scienceworld_qwen_7b", "scienceworld_smollm", "scienceworld_tiny"]

SHORT = ("find-animal", "find-living-thing", "find-non-living-thing", "find-plant")
"""The types of the tiny recipe: find a thing of a kind, focus on it, move it to a box. Solutions take 3 to 16 steps."""


def scienceworld_tiny() -> Recipe:
    """A model from scratch on four of the shortest types of task, which have many variations; for a CPU.

    The expert shows 250 of the 584 training tasks, so that RL has tasks without a demonstration: after a cold start on all
    tasks, RL has little left to learn. Other settings are those of `household`. `--env.kinds` takes other types; most are
    too hard for so small a model to learn from a few hundred tasks.
    """
    base = household()
    return replace(
        base,
        name="scienceworld-tiny",
        env=ScienceWorld(kinds=SHORT, dev_tasks=100),
        level="L0",
        iterations=30,
        tasks_per_iteration=8,
        tree=replace(base.tree, horizon=16),
        prompt=replace(base.prompt, limit=4096),
        sampling=replace(base.sampling, max_tokens=48),
        cold_start=replace(base.cold_start, demonstrations=640, tasks=250, epochs=4, batch=2),
        evaluation=replace(base.evaluation, levels=("L0", "L1"), every=0, dev_level="L1", dev_tasks=0),
        keep=Keep(),
    )


def scienceworld_smollm() -> Recipe:
    """SmolLM2-135M on the types of task of `scienceworld-tiny` (`smollm`), of which the expert shows 250 tasks."""
    recipe = smollm("scienceworld-smollm", ScienceWorld(kinds=SHORT, dev_tasks=100), horizon=16, limit=3072)
    evaluation = replace(recipe.evaluation, dev_level="L1")
    return replace(recipe, cold_start=replace(recipe.cold_start, tasks=250), evaluation=evaluation)


def scienceworld_qwen_1_5b() -> Recipe:
    """The paper's setting (`qwen`), but for longer prompts: observations reach 1,900 characters, names of objects 1,000.

    The engine's `easy` simplifications and 100 ticks are those of the released scripts; success is score 100 (theirs:
    `--env.success won`). For L2 train again with `--level L2 --evaluation.levels L2`.
    """
    return qwen("scienceworld-qwen-1-5b", ScienceWorld(heap=1024), "1.5B", Prompt(limit=4096), row=3000)


def scienceworld_qwen_7b() -> Recipe:
    """As `scienceworld_qwen_1_5b`, with Qwen2.5-7B-Instruct."""
    return qwen("scienceworld-qwen-7b", ScienceWorld(heap=1024), "7B", Prompt(limit=4096), row=3000)
