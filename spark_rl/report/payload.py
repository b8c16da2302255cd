"""The data of the page: one JSON value for a run, and one for each of its forests.

Invariants
----------
* Each value is complete. A number that is not finite is null, since JSON has no word for it.
* Texts of models and environments are not changed. The page shows them as text, so they need no escapes here.

`web/src/contract.ts` holds the types of these values; a test compares the names.

Steps are columns, one list for each field, and texts are indices into one table. Observations and actions repeat so often
that this takes a third of the size, and it compresses better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict, cast

from spark_rl.common.jsons import Json
from spark_rl.common.metrics import CURVES, METRICS, Curve
from spark_rl.config.recipe import Recipe
from spark_rl.evaluation.results import levels_to_json
from spark_rl.report.reading import Reading
from spark_rl.rollout.metrics import repeated
from spark_rl.types import Forest, Node, Task, Tree

__all__ = [
    "ForestEntry",
    "Payload",
    "TaskEntry",
    "TreeEntry",
    "forest_entry",
    "forest_payload",
    "metrics_payload",
    "missing_entry",
    "run_payload",
]

Payload = Mapping[str, object]
"""A JSON object for the page."""
MODES = {"explore": "e", "think": "t", "planning": "p", "reflection": "r", "monitor": "m", None: "-"}


class TaskEntry(TypedDict):
    """A task in the index of forests."""

    id: str
    kind: str
    instruction: str


class TreeEntry(TypedDict):
    """A tree in the index of forests."""

    task: TaskEntry
    steps: int
    leaves: int
    won: int
    forks: int


class ForestEntry(TypedDict):
    """A forest in the index of forests."""

    iteration: int
    trees: list[TreeEntry]
    missing: NotRequired[str]
    """Why the forest cannot be opened."""


def metrics_payload() -> Payload:
    """The metrics for the page, the same for all runs: the charts in order, and the meaning of each name."""
    return {
        "curves": [_curve(curve) for curve in CURVES],
        "metrics": [{"name": each.name, "about": _plain(each.about), "unit": each.unit} for each in METRICS],
    }


def _curve(curve: Curve) -> Payload:
    """A chart: its lines, and the interval around them where there is one; a single line has its description."""
    shown = [metric for metric in METRICS if metric.curve == curve.id]
    lines = [metric for metric in shown if metric.role == "line"]
    band = [metric.name for role in ("low", "high") for metric in shown if metric.role == role]
    about = _plain(lines[0].about) if len(lines) == 1 else ""
    return {
        "id": curve.id,
        "title": curve.title,
        "why": " ".join(filter(None, (about, curve.hint))),
        "columns": [{"name": metric.name, "label": metric.label} for metric in lines],
        "band": band or None,
        "share": all(metric.unit == "share" for metric in lines),
    }


def _plain(text: str) -> str:
    """Text without the marks of Markdown."""
    return text.replace("`", "")


def run_payload(reading: Reading, key: str, name: str, entries: Sequence[ForestEntry]) -> Payload:
    """A run without its steps.

    Args:
        reading: the content of the run directory.
        key: the key with which the page requests the run.
        name: the name of the run on the page.
        entries: the index of its forests, by `forest_entry` and `missing_entry`.
    """
    tasks: dict[str, int] = {}
    table: list[TaskEntry] = []
    forests: list[Payload] = []
    for entry in entries:
        trees: list[Payload] = []
        for tree in entry["trees"]:
            if tree["task"]["id"] not in tasks:
                tasks[tree["task"]["id"]] = len(tasks)
                table.append(tree["task"])
            trees.append({**tree, "task": tasks[tree["task"]["id"]]})
        forests.append({**entry, "trees": trees})
    return {
        "id": key,
        "name": name,
        "recipe": reading.label,
        "seed": reading.seed,
        "state": reading.state,
        "finished": reading.finished,
        "planned": reading.planned,
        "notes": list(reading.notes),
        "settings": reading.settings,
        "metrics": _columns(reading.rows),
        "evaluations": _finite({moment: levels_to_json(levels) for moment, levels in reading.evaluations.items()}),
        "tasks": table,
        "forests": forests,
    }


def forest_entry(forest: Forest) -> ForestEntry:
    """The entry of a forest in the index of a run, with which the page lists and filters trees."""
    return {"iteration": forest.iteration, "trees": [_tree_entry(tree) for tree in forest]}


def missing_entry(iteration: int, why: str) -> ForestEntry:
    """The index entry of a forest that cannot be opened."""
    return {"iteration": iteration, "trees": [], "missing": why}


def forest_payload(forest: Forest, recipe: Recipe | None) -> Payload:
    """A forest with all its steps, and with the advantages of the trainer where there is a recipe."""
    strings = _Strings()
    tasks = {tree.task.id: _task(tree.task) for tree in forest}
    numbers = {name: number for number, name in enumerate(tasks)}
    trees = [
        {
            "task": numbers[tree.task.id],
            "observation": strings[tree.observation],
            "opened": tree.opened,
            "cap": tree.cap,
            "horizon": tree.horizon,
            "forks": [[fork.node, fork.at, fork.extra, fork.exclude] for fork in tree.forks],
            "nodes": _nodes(tree, strings, recipe),
        }
        for tree in forest
    ]
    return {"iteration": forest.iteration, "tasks": list(tasks.values()), "strings": strings.texts, "trees": trees}


class _Strings:
    """A table of texts without repetition."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def __getitem__(self, text: str) -> int:
        if (place := self._places.get(text)) is None:
            place = self._places[text] = len(self.texts)
            self.texts.append(text)
        return place


def _nodes(tree: Tree, strings: _Strings, recipe: Recipe | None) -> Payload:
    nodes, again = tree.nodes, repeated(tree)
    return {
        "parent": [node.parent for node in nodes],
        "mode": "".join(MODES[node.mode] for node in nodes),
        "action": [strings[node.action] for node in nodes],
        "reasoning": [strings[node.reasoning] for node in nodes],
        "observation": [strings[node.observation] for node in nodes],
        "text": {str(index): strings[node.text] for index, node in enumerate(nodes) if not node.well_formed},
        "flags": [_flags(node, more) for node, more in zip(nodes, again, strict=True)],
        "reward": [_number(node.reward) for node in nodes],
        "tokens": [len(node.completion) for node in nodes],
        "logprob": [_number(sum(node.logprobs)) if node.logprobs else None for node in nodes],
        "entropy": [_number(sum(node.entropies) / len(node.entropies)) if node.entropies else None for node in nodes],
        "advantage": _advantages(tree, recipe),
    }


def _flags(node: Node, again: bool) -> int:
    bits = (node.well_formed, node.admissible, node.success, node.done, again, node.truncated > 0)
    return sum(bit << place for place, bit in enumerate(bits))


def _advantages(tree: Tree, recipe: Recipe | None) -> list[float | None]:
    """Advantage of each step, penalties included: the mean over the trajectories that contain the step."""
    if recipe is None:
        return [None] * len(tree.nodes)
    credit = recipe.rewards.credit(tree, recipe.advantage)
    sums = zip(credit.positive, credit.negative, credit.weight, strict=True)
    return [_number((positive + negative) / (weight or 1.0)) for positive, negative, weight in sums]


def _task(task: Task) -> TaskEntry:
    return {"id": task.id, "kind": task.kind, "instruction": task.instruction}


def _tree_entry(tree: Tree) -> TreeEntry:
    leaves = tree.leaves()
    return {
        "task": _task(tree.task),
        "steps": len(tree.nodes),
        "leaves": len(leaves),
        "won": sum(tree.nodes[leaf].success for leaf in leaves),
        "forks": len(tree.forks),
    }


def _columns(rows: Sequence[Mapping[str, object]]) -> dict[str, list[float | None]]:
    """One list for each metric, in the order in which the names appear."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _number(value: object) -> float | None:
    """The number with five significant digits, more than a picture shows; None if it is not finite."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.5g}")


def _finite(value: object) -> Json:
    """The same JSON value, with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in cast("list[object]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else cast(Json, value)
