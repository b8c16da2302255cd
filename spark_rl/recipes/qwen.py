"""The paper's setting (arXiv 2601.20209), whatever the world."""

from __future__ import annotations

from typing import Literal

from spark_rl.config.recipe import ColdStart, Evaluation, Optimizer, Recipe
from spark_rl.contracts import World
from spark_rl.engines.vllm.settings import Vllm
from spark_rl.models.weights import Weights
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Sampling

__all__ = ["qwen"]


def qwen(name: str, env: World, size: Literal["1.5B", "7B"], prompt: Prompt = Prompt(), *, row: int = 2048) -> Recipe:
    """The paper's setting (Section 4 and Appendix B) with Qwen2.5-Instruct; for GPUs.

    120 iterations of 16 tasks, N = 8 leaves from M = 4 roots, B = 2, horizon 30; prompts with the last five steps, at most
    2048 tokens, answers at most 512; a cold start on 300 expert paths, without rows of more than `row` tokens; lr 1e-6,
    KL 0.01, temperature 0.4. Evaluated on every task of L0 and L1. Where the paper says nothing, values are those of the
    released scripts (clip 0.2, dual clip 3, entropy 0.001; rows of 2048, 3000 and 6000 tokens for ALFWorld, ScienceWorld and
    WebShop); these scripts sample at 1.0 in training, not 0.4. Mini-batches are two whole trees instead of 256 rows.

    vLLM samples (extra `vllm`), on the learner's GPU, with all memory that the learner leaves; `--engine local` needs no
    further package. All weights are trained, as in the paper, on 32-bit copies; layers are recomputed, which changes no
    number. Memory needs and adapters for smaller devices are in docs/real-models.md; `spark-rl train NAME --dry-run`
    estimates yours.
    """
    return Recipe(
        name=name,
        env=env,
        model=f"Qwen/Qwen2.5-{size}-Instruct",
        weights=Weights(checkpointing=True),
        prompt=prompt,
        sampling=Sampling(temperature=0.4, max_tokens=512),
        optimizer=Optimizer(learning_rate=1e-6, minibatches=8),
        cold_start=ColdStart(max_tokens=row),
        evaluation=Evaluation(levels=("L0", "L1"), temperature=0.4, every=5),
        engine=Vllm(cache_gb=0.0),
    )
