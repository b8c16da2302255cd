"""A study in one file: results of many cells, a line each, after a header that holds what the lines have in common.

    {"format": "spark-rl-results", "version": 1, "study": NAME, "command": ..., "base": ..., "measures": [...], "arms": ...}
    {"arm": "grpo", "seed": 301, "curve": {"iteration": [0, 30], ...}, "before": {"L0": [...]}, "after": {"L0": [...]}, ...}

Invariants
----------
* `unpack` gives back exactly the results that `pack` was given; `pack` refuses results of which this is not true.
* Nothing is dropped but what another place of the file says. Settings are the header's `base`, with the changes of the arm,
  with the seed of the line. An evaluation before training that a line leaves out is that of the seed's first line. An
  evaluation is a list in the order of the header's `measures`, where null stands for a number that others determine.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from spark_rl.common.files import read_lines, write_bytes
from spark_rl.errors import UsageError

__all__ = ["FORMAT", "VERSION", "header", "pack", "read_study", "unpack", "write_study"]

FORMAT = "spark-rl-results"
VERSION = 1
MOMENTS = ("before", "after")

Values = dict[str, Any]


def header(study: str, command: str, **more: Any) -> Values:
    """The first line of a study's file.

    Args:
        study: its name.
        command: prints its tables from the file.
        more: what the lines have in common.
    """
    return {"format": FORMAT, "version": VERSION, "study": study, "command": command, **more}


def write_study(path: Path, head: Values, lines: Sequence[Values]) -> None:
    """Write a study's file in one step."""
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (head, *lines))
    write_bytes(path, text.encode())


def read_study(path: Path) -> tuple[Values, list[Values]]:
    """The header and the lines of a study's file.

    Raises:
        UsageError: it is no such file, or comes from a later version.
    """
    if not path.is_file():
        raise UsageError(f"{path} is no file of results")
    lines = read_lines(path)
    head: Any = lines[0] if lines else None
    if not isinstance(head, dict) or cast("Values", head).get("format") != FORMAT:
        raise UsageError(f"{path} holds no results of a study: its first line must say {FORMAT}")
    found = cast("Values", head)
    if found["version"] != VERSION:
        raise UsageError(f"{path} has version {found['version']} of the format; this version of spark-rl reads {VERSION}")
    return found, lines[1:]


def pack(results: Sequence[Values], study: str, command: str) -> tuple[Values, list[Values]]:
    """Results of cells as the header and the lines of one file.

    Args:
        results: of `cells/*.json`, or of `unpack`.
        study: name of the study.
        command: prints its tables from the file.

    Raises:
        ValueError: a result would not be read back as it is.
    """
    results = sorted(results, key=lambda result: result["seed"])
    base = _without_seed(results[0]["settings"])
    arms = {result["arm"]: _arm(base, result) for result in reversed(results)}
    arms = dict(sorted(arms.items()))
    records = [found for result in results for moment in MOMENTS for found in result.get(moment, {}).values()]
    measures = list(records[0]) if records else []
    head = header(study, command, base=base, measures=measures, arms=arms)
    firsts: dict[int, Values] = {}
    lines = [_line(result, head, firsts.setdefault(result["seed"], result)) for result in results]
    for result, again in zip(results, unpack(head, json.loads(json.dumps(lines))), strict=True):
        if result != again:
            raise ValueError(f"the result of {result['arm']} with seed {result['seed']} would not be read back as it is")
    return head, lines


def unpack(head: Values, lines: Sequence[Values]) -> list[Values]:
    """The results of a study's file, as `cells/*.json` hold them."""
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
                asked = cast("dict[str, Values]", value)
                result[name] = {options: _levels(found, head["measures"]) for options, found in asked.items()}
            elif name not in (*MOMENTS, "settings"):
                result[name] = value
        result["settings"] = settings
        results.append(result | ({"preferences": arm["preferences"]} if "preferences" in arm else {}))
    return results


# -- settings ----------------------------------------------------------------------------------------------------------


def _without_seed(settings: Values) -> Values:
    return {name: value for name, value in settings.items() if name != "seed"}


def _arm(base: Values, result: Values) -> Values:
    """What the header says of an arm."""
    said = {"settings": _difference(base, _without_seed(result["settings"]))}
    return said | ({"preferences": result["preferences"]} if "preferences" in result else {})


def _difference(base: Values, value: Values) -> Values:
    """What `_merged` needs besides `base` to give `value`; a component of another type, or with fewer fields, is whole."""
    if base.get("type") != value.get("type") or not base.keys() <= value.keys():
        return value
    changed = {name: inner for name, inner in value.items() if name not in base or base[name] != inner}
    return {
        name: _difference(base[name], inner) if _component(base.get(name)) and _component(inner) else inner
        for name, inner in changed.items()
    }


def _merged(base: Values, changes: Values) -> Values:
    """`base` with changes; changes that name a type are whole."""
    if "type" in changes:
        return dict(changes)
    return base | {
        name: _merged(base[name], cast("Values", inner)) if _component(base.get(name)) and isinstance(inner, dict) else inner
        for name, inner in changes.items()
    }


def _component(value: Any) -> bool:
    return isinstance(value, dict) and "type" in value


# -- results -----------------------------------------------------------------------------------------------------------


def _line(result: Values, head: Values, first: Values) -> Values:
    """One line of the file; `first` is the result that the file holds first of the seed."""
    arm = head["arms"][result["arm"]]["settings"]
    settings = _difference(head["base"], _without_seed(result["settings"]))
    line: Values = {"arm": result["arm"], "seed": result["seed"], "curve": _columns(result["curve"])}
    for name, value in result.items():
        if name in MOMENTS:
            line[name] = {level: _row(found, head["measures"]) for level, found in value.items()}
        elif name == "evaluations":
            line[name] = {
                asked: {level: _row(found, head["measures"]) for level, found in levels.items()}
                for asked, levels in value.items()
            }
        elif name not in (*line, "recipe", "settings", "preferences"):
            line[name] = value
    if "before" not in result and "before" in first:
        line["before"] = None
    elif result is not first and result.get("before") == first.get("before"):
        line.pop("before", None)
    return line | ({} if settings == arm else {"settings": settings})


def _columns(points: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """A curve by measure; all points have the same."""
    return {name: [_short(point[name]) for point in points] for name in points[0]}


def _points(columns: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """The inverse of `_columns`."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _row(found: Values, measures: Sequence[str]) -> Any:
    """An evaluation on a level as a list in the order of the measures, with what it holds besides at the end."""
    if not found.keys() >= set(measures):
        return found
    known = _determined(found)
    row: list[Any] = [None if name in known and known[name] == found[name] else found[name] for name in measures]
    for place, name in enumerate(measures):
        if name == "kinds" and all(list(kind) == ["wins", "tasks"] for kind in found[name].values()):
            row[place] = {kind: list(counts.values()) for kind, counts in found[name].items()}
        elif name == "averages" and row[place] is not None:
            means = known.get(name, {})
            row[place] = {one: None if means.get(one) == mean else mean for one, mean in found[name].items()}
        elif isinstance(row[place], float):
            row[place] = _short(row[place])
    more = {name: value for name, value in found.items() if name not in measures}
    return [*row, *([more] if more else [])]


def _levels(rows: Mapping[str, Any], measures: Sequence[str]) -> dict[str, Values]:
    """The inverse of `_row` on every level."""
    return {level: _found(row, measures) if isinstance(row, list) else row for level, row in rows.items()}


def _found(row: Any, measures: Sequence[str]) -> Values:
    found: Values = dict(zip(measures, row, strict=False))
    if "kinds" in found:
        kinds: Values = found["kinds"]
        found["kinds"] = {
            kind: {"wins": counts[0], "tasks": counts[1]} if isinstance(counts, list) else counts
            for kind, counts in kinds.items()
        }
    for name, value in _determined(found).items():
        if name in found and found[name] is None:
            found[name] = value
        elif name == "averages" and name in found:
            means: Values = found[name]
            found[name] = {one: value[one] if mean is None else mean for one, mean in means.items()}
    for more in row[len(measures) :]:
        found |= more
    return found


def _determined(found: Values) -> Values:
    """Numbers of an evaluation that others determine, where each task was played once and success is the whole score."""
    if not found.get("tasks"):
        return {}
    success = found["wins"] / found["tasks"]
    known: Values = {"success": round(success, 4), "score": round(success, 4), "env_steps": found.get("steps")}
    if kinds := found.get("kinds"):
        shares = [kind["wins"] / kind["tasks"] for kind in kinds.values()]
        known["averages"] = {"success": {"tasks": success, "types": statistics.fmean(shares)}}
    return known


def _short(number: float) -> float:
    """The same number, without a point where it is whole."""
    return int(number) if isinstance(number, float) and number.is_integer() else number
