"""Growth of one trajectory per task, for evaluation and for collecting trajectories."""

from __future__ import annotations

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Growth
from spark_rl.types import Sampling, TreeShape

__all__ = ["chains"]


def chains(growth: Growth, temperature: float) -> Growth:
    """The settings of training, but with one trajectory per task and another temperature."""
    shape = TreeShape(budget=1, roots=1, horizon=growth.shape.horizon)
    return Growth(shape, Chains(), growth.prompt, Sampling(temperature, growth.sampling.max_tokens))
