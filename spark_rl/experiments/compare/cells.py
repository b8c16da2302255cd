"""Cells of a comparison: a cell is one arm with one seed, has a run of its own, and leaves one small result.

Invariant: all arms of a seed (and start) begin with the same weights and are evaluated on the same tasks, so that only the
algorithm makes a difference between two cells. `shared` gives the settings that these cells must have in common.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import NotRequired, TypedDict

from spark_rl.common.jsons import JsonObject
from spark_rl.config.recipe import Recipe
from spark_rl.objective.preferences import Preferences

__all__ = ["FREE", "Cell", "CellResult", "cold_recipe", "prepared", "shared", "slug"]

FREE = frozenset(
    (
        *("name", "iterations", "tasks_per_iteration", "keep", "log", "scale", "engine.cache_gb"),
        *("branching", "tree.budget", "tree.roots", "tree.cap", "tree.pool", "tree.counted", "sampling.temperature"),
        *("rewards", "advantage", "loss", "optimizer"),
        *("evaluation.levels", "evaluation.every"),
    )
)
"""Settings in which the cells of a comparison may differ: the choices of an algorithm, the use of disk and memory, and the
levels and times of evaluations. All other settings must be equal, future ones included."""


@dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    arm: str
    recipe: Recipe
    start: str = ""
    """Name of the cold start that the cell begins with, where the seed has several cold starts."""
    evaluations: tuple[str, ...] = ()
    """Options of `spark-rl eval`, one string for each further evaluation of the last model on the levels of the recipe."""
    preferences: Preferences | None = None
    """Settings of ETO (`spark-rl eto`), which then follows the cold start in place of RL."""

    @property
    def name(self) -> str:
        """The part of file names that stands for the cell."""
        return f"seed-{self.recipe.seed}.{slug(self.arm)}"


class CellResult(TypedDict):
    """The result of a cell, as JSON."""

    arm: str
    seed: int
    recipe: str
    """Name of the recipe."""
    curve: list[dict[str, float]]
    """Held-out success and costs so far, after some of the iterations (`training.curve`)."""
    training_success: list[float]
    """Success in training of each iteration."""
    explore_ratio: list[float]
    """Explore ratio of each iteration."""
    training: NotRequired[dict[str, list[float]]]
    """Further measures of each iteration, by their names in metrics.jsonl."""
    before: NotRequired[dict[str, JsonObject]]
    """Evaluation before training, by level; `from_json(..., needed=())` reads each."""
    after: NotRequired[dict[str, JsonObject]]
    """Evaluation after training, by level."""
    evaluations: NotRequired[dict[str, dict[str, JsonObject]]]
    """Evaluations with other options, by these options and by level."""
    settings: JsonObject
    """The encoded recipe."""
    preferences: NotRequired[JsonObject]
    """The encoded settings of ETO."""


def prepared(recipe: Recipe) -> Recipe:
    """The recipe with the defaults of a comparison: one thread, and on disk only what resuming needs.

    Options of the user are set after these defaults.
    """
    every = recipe.evaluation.every or 5
    return replace(
        recipe,
        threads=1,
        evaluation=replace(recipe.evaluation, every=every),
        keep=replace(recipe.keep, forests=1, checkpoints=1, every=every),
    )


def cold_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the cold start alone; its evaluations are separate commands, on the tasks of the cells."""
    return replace(recipe, iterations=0, evaluation=replace(recipe.evaluation, levels=(), every=0))


def shared(recipe: Recipe) -> dict[str, object]:
    """The settings that cells with one cold start must have in common, by name: all that are not in `FREE`.

    A component with a free setting is split into its class and its other settings.
    """
    settings: dict[str, object] = {}
    for field_ in fields(recipe):
        name, value = field_.name, getattr(recipe, field_.name)
        if name in FREE:
            continue
        settings[name] = value
        if any(free.startswith(f"{name}.") for free in FREE):
            settings[name] = type(value)
            parts = [f"{name}.{part.name}" for part in fields(value) if f"{name}.{part.name}" not in FREE]
            settings |= {part: getattr(value, part.partition(".")[2]) for part in parts}
    return settings


def slug(name: str) -> str:
    """The name of an arm, or options, as a file name."""
    return re.sub(r"[^\w-]+", ".", name).strip("-.")
