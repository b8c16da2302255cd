"""The tables of a comparison in Markdown: every arm against the first, paired by seed.

Only a seed with a result of every arm counts, so that no arm gains from a lucky seed that another arm has not run yet. The
success of an arm *at equal x* is its success at the x where the shortest curve of the seed ends.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spark_rl.common.tables import markdown_table
from spark_rl.evaluation.results import from_json
from spark_rl.experiments.compare.cells import CellResult
from spark_rl.experiments.compare.curves import Curve, crossing_ratio, interval, paired

__all__ = ["AXES", "Comparison", "markdown"]

AXES = {"leaves": "leaves", "generated": "generated tokens", "env_steps": "environment steps"}
"""Axes of the comparison: name in the curve of a result -> name in tables."""
TRAINING = {
    "inadmissible_ratio": "refused steps",
    "malformed_ratio": "malformed steps",
    "explore_ratio": "exploring steps",
    "same_action_siblings": "pairs of siblings with one action",
    "zero_signal_groups": "groups without a signal",
}
"""Measures of the iterations -> their names in tables, all of them shares."""
TOKENS = "generated"
"""The axis of areas and crossings: tokens are the main cost of a rollout."""


@dataclass(frozen=True)
class Comparison:
    """The results of all arms on the seeds that all arms have. The first arm is the baseline."""

    arms: tuple[str, ...]
    results: tuple[tuple[CellResult, ...], ...]
    """[arm][seed]"""

    @classmethod
    def of(cls, arms: Sequence[str], results: Sequence[CellResult]) -> Comparison:
        """Sort results by arm and seed; incomplete seeds are left out."""
        by_cell = {(result["arm"], result["seed"]): result for result in results}
        seeds = [s for s in sorted({seed for _, seed in by_cell}) if all((arm, s) in by_cell for arm in arms)]
        return cls(tuple(arms), tuple(tuple(by_cell[arm, seed] for seed in seeds) for arm in arms))

    @property
    def seeds(self) -> list[int]:
        """The seeds with a result of every arm."""
        return [result["seed"] for result in self.results[0]]

    def curves(self, axis: str) -> list[list[Curve]]:
        """Success over an axis: [arm][seed]."""
        return [[_curve(result, axis) for result in results] for results in self.results]

    def at_equal(self, axis: str) -> list[list[float]]:
        """Success at the x where the shortest curve of the seed ends: [arm][seed]."""
        curves = self.curves(axis)
        ends = self._ends(curves)
        return [[curve.at(end) for curve, end in zip(of_arm, ends, strict=True)] for of_arm in curves]

    def areas(self, axis: str) -> list[list[float]]:
        """Mean success up to the x where the shortest curve of the seed ends: [arm][seed]."""
        curves = self.curves(axis)
        ends = self._ends(curves)
        return [[curve.area(end) for curve, end in zip(of_arm, ends, strict=True)] for of_arm in curves]

    def levels(self) -> list[str]:
        """Levels with an evaluation on the test split after training."""
        return list(self.results[0][0].get("after", {}))

    @staticmethod
    def _ends(curves: list[list[Curve]]) -> list[float]:
        return [min(curve.end for curve in of_seed) for of_seed in zip(*curves, strict=True)]


def markdown(comparison: Comparison) -> str:
    """The tables: success, differences to the first arm, and the test splits."""
    base, seeds = comparison.arms[0], comparison.seeds
    if not seeds:
        return "No seed has a result of every arm yet."
    parts = [
        f"{len(seeds)} seeds ({', '.join(map(str, seeds))}), means with 95 % intervals (Student's t over seeds; bootstrap "
        f"for ratios). No correction for the number of comparisons. Cold start: {_starts(comparison)}.",
        f"**Success on the held-out slice**\n\n{_absolute(comparison)}",
    ]
    if len(comparison.arms) > 1:
        parts.append(f"**Difference to `{base}`, paired by seed**\n\n{_differences(comparison)}")
    if comparison.levels():
        parts.append(
            f"**Success on the test splits after training**, and its difference to `{base}`\n\n{_tests(comparison)}"
        )
    if training := _training(comparison):
        parts.append(f"**Steps in training**, means over iterations and seeds\n\n{training}")
    parts.append(f"**What a run spent**, means over seeds\n\n{_spent(comparison)}")
    return "\n\n".join(parts) + "\n"


def _starts(comparison: Comparison) -> str:
    """Success before training: of the first arm, and of the arms with another cold start."""
    before = [[result["curve"][0]["success"] for result in results] for results in comparison.results]
    others = [
        f"`{arm}`, which has its own, {interval(of_arm)}"
        for arm, of_arm in zip(comparison.arms, before, strict=True)
        if of_arm != before[0]
    ]
    return "; ".join([f"{interval(before[0])}", *others])


def _absolute(comparison: Comparison) -> str:
    columns = _measures(comparison) | {
        "at its own end": [[result["curve"][-1]["success"] for result in results] for results in comparison.results]
    }
    return _table(comparison.arms, {name: [f"{interval(of_arm)}" for of_arm in values] for name, values in columns.items()})


def _measures(comparison: Comparison) -> dict[str, list[list[float]]]:
    """The measures by which arms are compared, [arm][seed] each."""
    equal = {f"at equal {name}": comparison.at_equal(axis) for axis, name in AXES.items()}
    return equal | {f"mean over {AXES[TOKENS]} (AUC)": comparison.areas(TOKENS)}


def _differences(comparison: Comparison) -> str:
    columns: dict[str, list[str]] = {}
    for name, values in _measures(comparison).items():
        columns[name] = [f"{paired(of_arm, values[0]):+.3f}" for of_arm in values[1:]]
    first, *rest = comparison.curves(TOKENS)
    columns[f"{AXES[TOKENS]} to reach `{comparison.arms[0]}`'s final success, ratio"] = [
        f"{crossing_ratio(curves, first):.2f}" for curves in rest
    ]
    return _table(comparison.arms[1:], columns)


def _tests(comparison: Comparison) -> str:
    columns: dict[str, list[str]] = {}
    for level in comparison.levels():
        for measure in ("success", "score"):
            name = level if measure == "success" else f"{level} {measure}"
            if after := _tested(comparison, "after", level, measure):
                more = ["", *(f" ({paired(of_arm, after[0]):+.3f})" for of_arm in after[1:])]
                columns[name] = [f"{interval(of_arm)}{change}" for of_arm, change in zip(after, more, strict=True)]
            if after and (before := _tested(comparison, "before", level, measure)):
                pairs = zip(after, before, strict=True)
                columns[f"{name}, added to the cold start"] = [f"{paired(*pair):+.3f}" for pair in pairs]
    return _table(comparison.arms, columns)


def _tested(comparison: Comparison, moment: Literal["before", "after"], level: str, measure: str) -> list[list[float]]:
    """Success on a test split, or a measure of the progress of tasks: [arm][seed]; empty where it was not measured."""
    found = [
        [from_json(result.get(moment, {}).get(level, {}), needed=()) for result in results] for results in comparison.results
    ]
    if measure == "success":
        values = [[one.success for one in of_arm] for of_arm in found]
    elif all(measure in one.averages for of_arm in found for one in of_arm):
        values = [[one.averages[measure].tasks for one in of_arm] for of_arm in found]
    else:
        return []
    return [] if any(math.isnan(value) for of_arm in values for value in of_arm) else values


def _training(comparison: Comparison) -> str:
    """What the steps of training were like; empty where a result does not say (ETO, no iterations, an earlier version)."""
    columns, tokens = {shown: list[str]() for shown in TRAINING.values()}, list[str]()
    for results in comparison.results:
        rows = [{"explore_ratio": result["explore_ratio"], **result.get("training", {})} for result in results]
        if not all(row.get(name) for row in rows for name in TRAINING):
            return ""
        forks = any(any(row["forks"]) for row in rows)
        for name, shown in TRAINING.items():
            mean = interval([statistics.fmean(row[name]) for row in rows])
            columns[shown].append(f"{mean}" if forks or name != "same_action_siblings" else "no forks")
        generated, leaves = (sum(result["curve"][-1][name] for result in results) for name in (TOKENS, "leaves"))
        tokens.append(f"{generated / leaves:,.0f}")
    columns[f"{AXES[TOKENS]} for a leaf"] = tokens
    return _table(comparison.arms, columns)


def _spent(comparison: Comparison) -> str:
    names = {**AXES, "unique_steps": "unique steps", "trained": "trained tokens", "seconds": "seconds"}
    totals = {
        shown: [
            f"{sum(result['curve'][-1][name] for result in results) / len(results):,.0f}" for results in comparison.results
        ]
        for name, shown in names.items()
    }
    return _table(comparison.arms, totals)


def _table(arms: Sequence[str], columns: Mapping[str, Sequence[str]]) -> str:
    rows = [[f"`{arm}`", *values] for arm, *values in zip(arms, *columns.values(), strict=True)]
    return markdown_table(["arm", *columns], rows, spaced=True)


def _curve(result: CellResult, axis: str) -> Curve:
    points = result["curve"]
    return Curve(tuple(point[axis] for point in points), tuple(point["success"] for point in points))
