"""`strategic` with one part taken out, each an arm: which part carries it?

    spark-rl compare household --arms strategic,benchmarks.ablations:without_anchors --out DIR

from the root of a clone; `python benchmarks/simulation.py` takes the same names.
"""

from __future__ import annotations

from dataclasses import replace

from spark_rl.advantage.anchors import Anchors
from spark_rl.config.recipe import Recipe
from spark_rl.recipes.algorithms import STEP_CREDIT, gigpo, strategic

VALUES, ANCHORS = STEP_CREDIT.parts


def without_values(recipe: Recipe) -> Recipe:
    """Nothing but repeated states: no step is held against the root."""
    return replace(strategic(recipe), advantage=ANCHORS)


def without_anchors(recipe: Recipe) -> Recipe:
    """Node values alone."""
    return replace(strategic(recipe), advantage=VALUES)


def without_backup(recipe: Recipe) -> Recipe:
    """Anchors are valued by what happened after them, as in GiGPO, and not by what happened after their like."""
    assert isinstance(ANCHORS, Anchors)
    return replace(strategic(recipe), advantage=replace(STEP_CREDIT, parts=(VALUES, replace(ANCHORS, beta=0.0, sweeps=0))))


def without_reallocation(recipe: Recipe) -> Recipe:
    """N independent trajectories of every task: no forks, no second phase, the credit alone."""
    return replace(gigpo(recipe), advantage=STEP_CREDIT)
