"""The cost of a cell before it is run, estimated from the recipe and from the expected steps and tokens.

The estimate assumes that every tree uses its whole budget of leaves and that leaves share no steps. It is therefore too high
by the shared steps (usually a tenth). The cold start is not included, because cells share one cold start.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from spark_rl.config.options import take
from spark_rl.config.recipe import Recipe
from spark_rl.errors import UsageError
from spark_rl.experiments.compare.cells import Cell
from spark_rl.experiments.paper.benchmarks import BENCHMARKS, TOKENS, Scale
from spark_rl.models.scratch import ScratchModel

__all__ = ["Cost", "cost", "memory_bytes", "total"]

_SHAPES = {
    "Qwen/Qwen2.5-1.5B-Instruct": (1_543_714_304, 28, 1536, 8960, 256, 151_936),
    "Qwen/Qwen2.5-7B-Instruct": (7_615_616_512, 28, 3584, 18944, 512, 152_064),
}
"""Parameters, layers, widths of the model, of its feed-forward part and of a layer's keys, vocabulary: copied from the hub's
configurations, so that planning needs no network."""


@dataclass(frozen=True)
class Cost:
    """The cost of one seed of a cell."""

    tokens: float
    """Tokens generated in training and in all evaluations."""
    env_steps: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.tokens + other.tokens, self.env_steps + other.env_steps)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.tokens - other.tokens, self.env_steps - other.env_steps)

    def __str__(self) -> str:
        return f"{self.tokens / 1e6:,.2f} M tokens, {self.env_steps / 1e3:,.0f} k environment steps"


def cost(cell: Cell, scale: Scale) -> Cost:
    """The estimated cost of a cell's training and evaluations."""
    recipe, benchmark = cell.recipe, BENCHMARKS[cell.recipe.env.name]
    settings, tests = recipe.evaluation, sum(benchmark.tests.get(level, 0) for level in recipe.evaluation.levels)
    trained = recipe.iterations * recipe.tasks_per_iteration * recipe.tree.budget
    if learns := cell.preferences:  # ETO plays demonstrated tasks, or all tasks
        known = recipe.cold_start.demonstrations if learns.winner == "demonstrated" else benchmark.tasks
        trained = learns.iterations * learns.episodes * min(learns.tasks or known, known)
    watched = settings.dev_tasks * (-(-recipe.iterations // settings.every) if settings.every else 0)
    evaluated = sum(tests * _episodes(options, recipe) for options in cell.evaluations)
    after = tests if trained else 0
    steps = (trained + watched + evaluated + after) * min(benchmark.steps, recipe.tree.horizon)
    return Cost(steps * TOKENS[scale], steps)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of the costs."""
    return sum(costs, Cost(0, 0))


def _episodes(options: str, recipe: Recipe) -> int:
    """Most trajectories that an evaluation plays for a task."""
    samples, rest = take(shlex.split(options), "--samples")
    leaves = recipe.tree.budget if "episodes" in rest else 1
    return int(samples or 1) * leaves


def memory_bytes(recipe: Recipe) -> int | None:
    """Peak memory that a run needs (`memory.need`); None if the model's shape is unknown."""
    from spark_rl.learning import memory

    if isinstance(recipe.model, ScratchModel) or recipe.model not in _SHAPES:
        try:
            return memory.need(recipe, memory.shape(recipe)).total
        except UsageError:
            return None
    parameters, layers, hidden, inner, keys, vocabulary = _SHAPES[recipe.model]
    attention = [(hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden)]
    matrices = tuple(layers * [*attention, (hidden, inner), (hidden, inner), (inner, hidden)])
    size = 4 if recipe.weights.dtype == "float32" else 2
    shape = memory.Shape(parameters, matrices, layers, hidden, inner, 2 * layers * keys, vocabulary, size)
    return memory.need(recipe, shape).total
