"""The file of a study: a header with the common part of all results, then one line for the result of each cell.

    {"format": "spark-rl-results", "version": 1, "study": NAME, "command": ..., "base": ..., "measures": [...], "arms": ...}
    {"arm": "grpo", "seed": 301, "curve": {"iteration": [0, 30], ...}, "before": {"L0": [...]}, "after": {"L0": [...]}, ...}

Invariants
----------
* `unpack` returns exactly the results that `pack` received; `pack` refuses results for which this does not hold.
* A value is left out only where the rest of the file determines it. The settings of a line are the header's `base`, with the
  changes of the arm and the seed of the line. A line without an evaluation before training has that of the first line with
  its seed. An evaluation is a list in the order of the header's `measures`; null is a number that other numbers determine.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from spark_rl.common.files import read_lines, write_bytes
from spark_rl.common.jsons import Json
from spark_rl.errors import UsageError
from spark_rl.experiments.compare.cells import CellResult

__all__ = ["FORMAT", "VERSION", "header", "pack", "read_study", "unpack", "write_study"]

FORMAT = "spark-rl-results"
VERSION = 1
MOMENTS = ("before", "after")

Values = dict[str, Any]
"""A JSON object. Its form depends on the version that wrote it, so `pack` compares values and takes no form for granted."""


def header(study: str, command: str, **more: object) -> Values:
    """The first line of the file of a study.

    Args:
        study: the name of the study.
        command: the command that prints the tables from the file.
        more: the common part of the lines.
    """
    return {"format": FORMAT, "version": VERSION, "study": study, "command": command, **more}


def write_study(path: Path, head: Values, lines: Sequence[Values]) -> None:
    """Write the file of a study in one step."""
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (head, *lines))
    write_bytes(path, text.encode())


def read_study(path: Path) -> tuple[Values, list[Values]]:
    """The header and the lines of the file of a study.

    Raises:
        UsageError: the file is not that of a study, or a later version wrote it.
    """
    if not path.is_file():
        raise UsageError(f"{path} is no file of results")
    lines = read_lines(path)
    head = cast(Values, lines[0]) if lines and isinstance(lines[0], dict) else {}
    if head.get("format") != FORMAT:
        raise UsageError(f"{path} holds no results of a study: its first line must say {FORMAT}")
    if head["version"] != VERSION:
        raise UsageError(f"{path} has version {head['version']} of the format; this version of spark-rl reads {VERSION}")
    return head, lines[1:]


def pack(results: Sequence[CellResult], study: str, command: str) -> tuple[Values, list[Values]]:
    """Results of cells as the header and the lines of one file.

    Args:
        results: results of `cells/*.json`, or of `unpack`.
        study: the name of the study.
        command: the command that prints the tables from the file.

    Raises:
        ValueError: `unpack` would not return a result as it is.
    """
    return _packed(sorted(cast("Sequence[Values]", results), key=lambda result: result["seed"]), study, command)


def _packed(results: Sequence[Values], study: str, command: str) -> tuple[Values, list[Values]]:
    base = _without_seed(results[0]["settings"])
    arms = {result["arm"]: _arm(base, result) for result in reversed(results)}
    arms = dict(sorted(arms.items()))
    evaluations = [level for result in results for moment in MOMENTS for level in result.get(moment, {}).values()]
    measures = list(evaluations[0]) if evaluations else []
    head = header(study, command, base=base, measures=measures, arms=arms)
    firsts: dict[int, Values] = {}
    lines = [_line(result, head, firsts.setdefault(result["seed"], result)) for result in results]
    for result, again in zip(results, unpack(head, json.loads(json.dumps(lines))), strict=True):
        if result != again:
            raise ValueError(f"the result of {result['arm']} with seed {result['seed']} would not be read back as it is")
    return head, lines


def unpack(head: Values, lines: Sequence[Values]) -> list[CellResult]:
    """The results in the file of a study, as in `cells/*.json`."""
    firsts: dict[int, Values] = {}
    results: list[Values] = []
    for line in lines:
        arm = head["arms"][line["arm"]]
        settings = _merged(head["base"], line.get("settings", arm["settings"])) | {"seed": line["seed"]}
        result = {"arm": line["arm"], "seed": line["seed"], "recipe": settings["name"], "curve": _points(line["curve"])}
        first = firsts.setdefault(line["seed"], line)
        whole = {"before": first.get("before")} | {name: value for name, value in line.items() if name not in result}
        for name, value in whole.items():
            if name in MOMENTS and value is not None:
                result[name] = _levels(value, head["measures"])
            elif name == "evaluations":
                by_options = cast("dict[str, Values]", value)
                result[name] = {options: _levels(levels, head["measures"]) for options, levels in by_options.items()}
            elif name not in (*MOMENTS, "settings"):
                result[name] = value
        result["settings"] = settings
        results.append(result | ({"preferences": arm["preferences"]} if "preferences" in arm else {}))
    return cast("list[CellResult]", results)


# -- settings ----------------------------------------------------------------------------------------------------------


def _without_seed(settings: Values) -> Values:
    return {name: value for name, value in settings.items() if name != "seed"}


def _arm(base: Values, result: Values) -> Values:
    """The entry of an arm in the header."""
    entry = {"settings": _difference(base, _without_seed(result["settings"]))}
    return entry | ({"preferences": result["preferences"]} if "preferences" in result else {})


def _difference(base: Values, value: Values) -> Values:
    """The changes with which `_merged` turns `base` into `value`.

    A component with another type or with fewer fields is written whole.
    """
    if base.get("type") != value.get("type") or not base.keys() <= value.keys():
        return value
    changed = {name: inner for name, inner in value.items() if name not in base or base[name] != inner}
    return {
        name: _difference(base[name], inner) if _component(base.get(name)) and _component(inner) else inner
        for name, inner in changed.items()
    }


def _merged(base: Values, changes: Values) -> Values:
    """`base` with changes; changes with a type replace the whole component."""
    if "type" in changes:
        return dict(changes)
    return base | {
        name: _merged(base[name], cast("Values", inner)) if _component(base.get(name)) and isinstance(inner, dict) else inner
        for name, inner in changes.items()
    }


def _component(value: object) -> bool:
    return isinstance(value, dict) and "type" in value


# -- results -----------------------------------------------------------------------------------------------------------


def _line(result: Values, head: Values, first: Values) -> Values:
    """One line of the file; `first` is the result in the first line with the same seed."""
    arm = head["arms"][result["arm"]]["settings"]
    settings = _difference(head["base"], _without_seed(result["settings"]))
    line: Values = {"arm": result["arm"], "seed": result["seed"], "curve": _columns(result["curve"])}
    for name, value in result.items():
        if name in MOMENTS:
            line[name] = _rows(value, head["measures"])
        elif name == "evaluations":
            line[name] = {options: _rows(levels, head["measures"]) for options, levels in value.items()}
        elif name not in (*line, "recipe", "settings", "preferences"):
            line[name] = value
    if "before" not in result and "before" in first:
        line["before"] = None
    elif result is not first and result.get("before") == first.get("before"):
        line.pop("before", None)
    return line | ({} if settings == arm else {"settings": settings})


def _columns(points: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """A curve as one list for each measure; all points have the same measures."""
    return {name: [_short(point[name]) for point in points] for name in points[0]}


def _points(columns: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """The inverse of `_columns`."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _rows(levels: Mapping[str, Values], measures: Sequence[str]) -> dict[str, Json]:
    """An evaluation with a row for each level."""
    return {level: _row(numbers, measures) for level, numbers in levels.items()}


def _row(numbers: Values, measures: Sequence[str]) -> Json:
    """The evaluation of a level as a list in the order of the measures, with an object of all other numbers at the end."""
    if not numbers.keys() >= set(measures):
        return numbers
    known = _determined(numbers)
    row: list[Any] = [None if name in known and known[name] == numbers[name] else numbers[name] for name in measures]
    for place, name in enumerate(measures):
        if name == "kinds" and all(list(kind) == ["wins", "tasks"] for kind in numbers[name].values()):
            row[place] = {kind: list(counts.values()) for kind, counts in numbers[name].items()}
        elif name == "averages" and row[place] is not None:
            means = known.get(name, {})
            row[place] = {one: None if means.get(one) == mean else mean for one, mean in numbers[name].items()}
        elif isinstance(row[place], float):
            row[place] = _short(row[place])
    more = {name: value for name, value in numbers.items() if name not in measures}
    return [*row, *([more] if more else [])]


def _levels(rows: Mapping[str, list[Any] | Values], measures: Sequence[str]) -> dict[str, Values]:
    """The inverse of `_rows`."""
    return {level: _numbers(row, measures) if isinstance(row, list) else row for level, row in rows.items()}


def _numbers(row: Sequence[Any], measures: Sequence[str]) -> Values:
    """The inverse of `_row`."""
    numbers: Values = dict(zip(measures, row, strict=False))
    if "kinds" in numbers:
        kinds: Values = numbers["kinds"]
        numbers["kinds"] = {
            kind: {"wins": counts[0], "tasks": counts[1]} if isinstance(counts, list) else counts
            for kind, counts in kinds.items()
        }
    for name, value in _determined(numbers).items():
        if name in numbers and numbers[name] is None:
            numbers[name] = value
        elif name == "averages" and name in numbers:
            means: Values = numbers[name]
            numbers[name] = {one: value[one] if mean is None else mean for one, mean in means.items()}
    for more in row[len(measures) :]:
        numbers |= more
    return numbers


def _determined(numbers: Values) -> Values:
    """Numbers that others determine in an evaluation where each task was played once and the score is the success."""
    if not numbers.get("tasks"):
        return {}
    success = numbers["wins"] / numbers["tasks"]
    known: Values = {"success": round(success, 4), "score": round(success, 4), "env_steps": numbers.get("steps")}
    if kinds := numbers.get("kinds"):
        shares = [kind["wins"] / kind["tasks"] for kind in kinds.values()]
        known["averages"] = {"success": {"tasks": success, "types": statistics.fmean(shares)}}
    return known


def _short(number: float) -> float:
    """The same number, as an integer where it is whole."""
    return int(number) if isinstance(number, float) and number.is_integer() else number
