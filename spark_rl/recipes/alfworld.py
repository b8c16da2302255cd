"""ALFWorld: real games on the real text engine, on a laptop and as in the paper."""

from __future__ import annotations

from dataclasses import replace

from spark_rl.environments.alfworld import Alfworld
from spark_rl.fresh import FreshModel
from spark_rl.growth import Sampling, TreeShape
from spark_rl.loss import Loss
from spark_rl.prompting import Prompt, Transcript
from spark_rl.recipe import ColdStart, Evaluation, Optimizer, Recipe

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
    """The paper's setting (arXiv 2601.20209, Section 4 and Appendix B) with Qwen2.5-1.5B-Instruct; for GPUs.

    120 iterations of 16 tasks, N = 8 leaves from M = 4 roots, B = 2, horizon 30; prompts with the last five steps, at most
    2048 tokens, answers at most 512; a cold start on 300 expert paths; lr 1e-6, KL 0.01, temperature 0.4. Evaluated on
    every game of L0 and L1; for L2 train again with `--level L2 --evaluation.levels L2`. Where the paper is silent the
    released scripts are followed (clip 0.2, dual clip 3, entropy 0.001); they sample training at 1.0, not 0.4. Their
    mini-batches of 256 rows are here two whole trees.
    """
    return Recipe(
        name="alfworld-qwen-1-5b",
        env=Alfworld(engines=64),
        model="Qwen/Qwen2.5-1.5B-Instruct",
        sampling=Sampling(temperature=0.4, max_tokens=512),
        optimizer=Optimizer(learning_rate=1e-6, minibatches=8),
        evaluation=Evaluation(levels=("L0", "L1"), temperature=0.4, every=5),
        cache_gb=16.0,
    )


def alfworld_qwen_7b() -> Recipe:
    """As `alfworld_qwen_1_5b`, with Qwen2.5-7B-Instruct."""
    return replace(alfworld_qwen_1_5b(), name="alfworld-qwen-7b", model="Qwen/Qwen2.5-7B-Instruct")
