"""How one trajectory a task is played: what evaluation and the collecting of trajectories share."""

from __future__ import annotations

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Growth
from spark_rl.types import Sampling, TreeShape

__all__ = ["chains"]


def chains(growth: Growth, temperature: float) -> Growth:
    """One trajectory a task, at a temperature of its own, otherwise as in training."""
    shape = TreeShape(budget=1, roots=1, horizon=growth.shape.horizon)
    return Growth(shape, Chains(), growth.prompt, Sampling(temperature, growth.sampling.max_tokens))
