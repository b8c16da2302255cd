"""What the tables read off the results of cells: pure functions, in the units of the paper.

Shares are in percent, but for the explore ratio, which the paper prints as a share; tokens are counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from spark_rl.evaluation.results import LevelResult, from_json
from spark_rl.experiments.paper.benchmarks import BENCHMARKS
from spark_rl.experiments.paper.table import Column, Measure

__all__ = ["DIGITS", "RELATIVE", "value"]

Result = Mapping[str, Any]
"""A cell's result (`compare.training`)."""

DIGITS: dict[Measure, int] = {"explore": 2, "tokens": 0}
"""Digits after the point, where not one."""
RELATIVE: tuple[Measure, ...] = ("generated", "per_leaf")
"""Measures that a table shows as percent of its reference row, seed by seed."""


def value(column: Column, result: Callable[[str], Result], evaluation: str = "", rule: str = "") -> float | None:
    """A column's number from one seed of a row.

    Args:
        column: what is measured.
        result: the result of the row's cell that is evaluated at a level.
        evaluation: the options of the evaluation to read; empty: that after training.
        rule: the rule of choosing whose success is read; empty: the evaluation's own.

    Returns:
        None where it was not measured (a user's own `evaluation.levels`, a run without iterations).
    """

    def found(level: str) -> LevelResult:
        whole = result(level)
        return from_json((whole["evaluations"][evaluation] if evaluation else whole["after"]).get(level, {}), needed=())

    match column.measure:
        case "generated":
            return float(result(column.level)["curve"][-1]["generated"])
        case "per_leaf":
            spent = result(column.level)["curve"][-1]
            return spent["generated"] / spent["leaves"] if spent["leaves"] else None
        case "explore":
            ratios = result(column.level)["explore_ratio"]
            return float(ratios[max(1, round(float(column.key) * len(ratios))) - 1]) if ratios else None
        case "drop":
            before, after = (found(level).success for level in (column.level, column.key))
            return _measured(100 * (1 - after / before)) if before else None
        case "kind":
            of = found(column.level).kinds.get(BENCHMARKS[column.world].kinds[column.key])
            return 100 * of.wins / of.tasks if of else None
        case "score":
            score = found(column.level).averages.get("score")
            return 100 * score.tasks if score else None
        case "pass_at":
            return _measured(100 * found(column.level).pass_at.get(column.key, math.nan))
        case "tokens":
            return _measured(found(column.level).tokens)
        case "success" if rule:
            branching = found(column.level).branching
            return _measured(100 * branching.by_rule.get(rule, math.nan)) if branching else None
        case "success":
            return _measured(100 * found(column.level).success)
        case "repetitive":
            return _measured(100 * found(column.level).repetitive_ratio)


def _measured(number: float) -> float | None:
    """None where nobody measured it."""
    return None if math.isnan(number) else number
