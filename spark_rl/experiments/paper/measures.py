"""The numbers of the paper's tables from the results of cells: pure functions, in the units of the paper.

Shares are in percent, except the explore ratio, which the paper prints as a share. Tokens are counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from spark_rl.evaluation.results import LevelResult, from_json
from spark_rl.experiments.compare.cells import CellResult
from spark_rl.experiments.paper.benchmarks import BENCHMARKS
from spark_rl.experiments.paper.table import Column, Measure

__all__ = ["DIGITS", "RELATIVE", "value"]

DIGITS: dict[Measure, int] = {"explore": 2, "tokens": 0}
"""Digits after the point of the measures that do not have one digit."""
RELATIVE: tuple[Measure, ...] = ("generated", "per_leaf")
"""Measures that a table shows in percent of its reference row, seed by seed."""


def value(column: Column, result: Callable[[str], CellResult], evaluation: str = "", rule: str = "") -> float | None:
    """A column's number from one seed of a row.

    Args:
        column: the column, with its measure.
        result: gives the result of the row's cell that is evaluated at a level.
        evaluation: the options of the evaluation; empty: the evaluation after training.
        rule: the rule of choosing a trajectory; empty: the rule of the evaluation.

    Raises:
        KeyError: the cell, or the evaluation, has no result yet.

    Returns:
        The number; None where it was not measured (other `evaluation.levels`, a run without iterations).
    """

    def evaluated(level: str) -> LevelResult:
        cell = result(level)
        levels = cell.get("evaluations", {})[evaluation] if evaluation else cell.get("after", {})
        return from_json(levels.get(level, {}), needed=())

    match column.measure:
        case "generated":
            return float(result(column.level)["curve"][-1]["generated"])
        case "per_leaf":
            costs = result(column.level)["curve"][-1]
            return costs["generated"] / costs["leaves"] if costs["leaves"] else None
        case "explore":
            ratios = result(column.level)["explore_ratio"]
            return float(ratios[max(1, round(float(column.key) * len(ratios))) - 1]) if ratios else None
        case "drop":
            before, after = (evaluated(level).success for level in (column.level, column.key))
            return _measured(100 * (1 - after / before)) if before else None
        case "kind":
            of = evaluated(column.level).kinds.get(BENCHMARKS[column.world].kinds[column.key])
            return 100 * of.wins / of.tasks if of else None
        case "score":
            score = evaluated(column.level).averages.get("score")
            return 100 * score.tasks if score else None
        case "pass_at":
            return _measured(100 * evaluated(column.level).pass_at.get(column.key, math.nan))
        case "tokens":
            return _measured(evaluated(column.level).tokens)
        case "success" if rule:
            branching = evaluated(column.level).branching
            return _measured(100 * branching.by_rule.get(rule, math.nan)) if branching else None
        case "success":
            return _measured(100 * evaluated(column.level).success)
        case "repetitive":
            return _measured(100 * evaluated(column.level).repetitive_ratio)


def _measured(number: float) -> float | None:
    """The number; None for NaN, which stands for a number that was not measured."""
    return None if math.isnan(number) else number
