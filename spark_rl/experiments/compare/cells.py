"""Cells of a comparison: one arm and one seed, each a run of its own that leaves one small result.

Invariant: all arms of a seed (and start) begin with the same weights and are evaluated on the same tasks, so that a
difference between two of their cells is the algorithm's. `shared` says what they must have in common for that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any

from spark_rl.config.recipe import Recipe
from spark_rl.objective.preferences import Preferences

__all__ = ["FREE", "Cell", "cold_recipe", "prepared", "shared", "slug"]

FREE = frozenset(
    (
        *("name", "iterations", "tasks_per_iteration", "keep", "log", "engine.cache_gb"),
        *("branching", "tree.budget", "tree.roots", "tree.cap", "tree.counted", "sampling.temperature"),
        *("rewards", "advantage", "loss", "optimizer"),
        *("evaluation.levels", "evaluation.every"),
    )
)
"""Settings in which cells that are compared may differ: what an algorithm chooses, what says where files and memory go, and
which levels are evaluated and how often. All others must be equal, those included that a recipe may get one day."""


@dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    arm: str
    recipe: Recipe
    start: str = ""
    """Which of the seed's cold starts it begins with, where there are several."""
    evaluations: tuple[str, ...] = ()
    """Options of `spark-rl eval`: ways in which its last model is evaluated besides, on the levels of its recipe."""
    preferences: Preferences | None = None
    """After the cold start it learns so from its failures (`spark-rl eto`), and not by RL."""

    @property
    def name(self) -> str:
        """Part of its file names."""
        return f"seed-{self.recipe.seed}.{slug(self.arm)}"


def prepared(recipe: Recipe) -> Recipe:
    """Defaults of a comparison: one thread, and no more on disk than resuming needs. What a user sets comes after."""
    every = recipe.evaluation.every or 5
    return replace(
        recipe,
        threads=1,
        evaluation=replace(recipe.evaluation, every=every),
        keep=replace(recipe.keep, forests=1, checkpoints=1, every=every),
    )


def cold_recipe(recipe: Recipe) -> Recipe:
    """Nothing but the cold start; its own evaluations are made apart, on the tasks of the cells."""
    return replace(recipe, iterations=0, evaluation=replace(recipe.evaluation, levels=(), every=0))


def shared(recipe: Recipe) -> dict[str, Any]:
    """What cells that begin alike must have in common, by name: every setting that is not in `FREE`.

    Of a component with a free setting the class and the other settings are given one by one.
    """
    found: dict[str, Any] = {}
    for field_ in fields(recipe):
        name, value = field_.name, getattr(recipe, field_.name)
        if name in FREE:
            continue
        found[name] = value
        if any(free.startswith(f"{name}.") for free in FREE):
            found[name] = type(value)
            parts = [f"{name}.{part.name}" for part in fields(value) if f"{name}.{part.name}" not in FREE]
            found |= {part: getattr(value, part.partition(".")[2]) for part in parts}
    return found


def slug(name: str) -> str:
    """An arm's name, or options, as a file name."""
    return re.sub(r"[^\w-]+", ".", name).strip("-.")
