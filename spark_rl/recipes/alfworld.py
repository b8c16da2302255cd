"""ALFWorld: real games on the real text engine, on a laptop and as in the paper."""

from __future__ import annotations

from dataclasses import replace

from spark_rl.config.recipe import Keep, Recipe
from spark_rl.environments.alfworld import Alfworld
from spark_rl.models.scratch import ScratchModel
from spark_rl.recipes.household import household
from spark_rl.recipes.qwen import qwen
from spark_rl.recipes.smollm import smollm

__all__ = ["alfworld_qwen_1_5b", "alfworld_qwen_7b", "alfworld_smollm", "alfworld_tiny"]


def alfworld_tiny() -> Recipe:
    """A model from scratch on real ALFWorld games, after a cold start on a searching expert's paths; for a CPU.

    Settings are those of `household`, but for the horizon and one head of keys and values: on a CPU, reading the long
    transcripts takes most of the time of generation. Making the 1,500 demonstrations takes more than half of the cold
    start's time; `spark-rl demos alfworld --recipe alfworld-tiny --count 1500` writes them once for many runs
    (`cold_start.data`).
    """
    base = household()
    return replace(
        base,
        name="alfworld-tiny",
        env=Alfworld(engines=64),  # as many engines as games are played at once
        model=ScratchModel(hidden=128, layers=2, heads=4, kv_heads=1, intermediate=256),
        level="L0",
        iterations=30,
        tasks_per_iteration=8,
        tree=replace(base.tree, horizon=30),
        prompt=replace(base.prompt, limit=3072),
        sampling=replace(base.sampling, max_tokens=48),
        cold_start=replace(base.cold_start, demonstrations=1500, epochs=6, batch=2),
        evaluation=replace(base.evaluation, levels=("L0", "L1"), every=0, dev_tasks=50),
        keep=Keep(),
    )


def alfworld_smollm() -> Recipe:
    """SmolLM2-135M on real ALFWorld games (`smollm`), evaluated on all games of L0 and L1."""
    return smollm("alfworld-smollm", Alfworld(engines=64), horizon=30, limit=3072)


def alfworld_qwen_1_5b() -> Recipe:
    """The paper's setting (`qwen`). For L2 train again with `--level L2 --evaluation.levels L2`."""
    return qwen("alfworld-qwen-1-5b", Alfworld(engines=64), "1.5B")


def alfworld_qwen_7b() -> Recipe:
    """As `alfworld_qwen_1_5b`, with Qwen2.5-7B-Instruct."""
    return qwen("alfworld-qwen-7b", Alfworld(engines=64), "7B")
