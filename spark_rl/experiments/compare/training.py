"""The work of a cell: the cold start that the arms share, the training, and the evaluations.

Invariants
----------
* A cell that was killed continues from its last checkpoint and has the same result as one that was not killed.
* An evaluation that a later command needs is added to the result; evaluations that exist are not repeated.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from spark_rl.common.files import atomic_directory
from spark_rl.common.jsons import JsonObject
from spark_rl.config.codec import encode
from spark_rl.errors import UsageError
from spark_rl.evaluation.results import LevelResult, Levels, levels_from_json, to_json
from spark_rl.experiments.compare.cells import Cell, CellResult, cold_recipe, shared, slug
from spark_rl.experiments.compare.processes import Runner
from spark_rl.experiments.compare.results import Results
from spark_rl.runs.run import Run, read_rows

__all__ = ["cold_start", "curve", "run_cell"]

MEASURES = (
    "success",
    "wins",
    "tasks",
    "score",
    "steps",
    "invalid_ratio",
    "repetitive_ratio",
    "explore_ratio",
    "tokens",
    "env_steps",
)
"""Numbers of an evaluation that a result holds, rounded."""
TABLES = ("kinds", "averages", "pass_at", "branching")
"""Tables of an evaluation that a result holds as they are, where the evaluation has them."""
WATCHED = ("malformed_ratio", "inadmissible_ratio", "forks", "same_action_siblings", "zero_signal_groups")
"""Measures of each iteration of RL that a result holds besides success and explore ratio."""
SUMS = ("leaves", "generated", "env_steps", "unique_steps", "trained", "seconds")
"""Costs that the curve of a result adds up over the iterations."""


def cold_start(results: Results, runner: Runner, cell: Cell) -> None:
    """Make the cold start of a cell, and evaluate it on the tasks of the cells that begin with it."""
    recipe, directory = cold_recipe(cell.recipe), results.cold(cell)
    log = results.out / "logs" / f"{directory.name}.cold.log"
    if results.open(directory, recipe, shared) is None:
        Run.create(directory, recipe)
    if not (directory / "checkpoints" / "cold-start").exists():
        runner.call(log, "train", "--resume", str(directory))
    settings, level = recipe.evaluation, recipe.evaluation.dev_level
    cold = ("--checkpoint", "cold-start", "--level")
    _evaluate(runner, log, directory, "dev", *cold, level, "--split", "dev", "--tasks", str(settings.dev_tasks))
    if levels := cell.recipe.evaluation.levels:
        _evaluate(runner, log, directory, "test", *cold, *levels)


def run_cell(results: Results, runner: Runner, cell: Cell) -> CellResult:
    """Train a cell from its cold start, or continue it; make its evaluations; write its result.

    Raises:
        SparkError: the training or an evaluation failed; the log of the cell has the reason.
    """
    result = results.result(cell) or _train(results, runner, cell)
    evaluations = result.setdefault("evaluations", {}) if cell.evaluations else {}
    for options in cell.evaluations:
        if options not in evaluations:
            evaluations[options] = _further_evaluation(results, runner, cell, options)
            results.save(cell, result)
    return result


def _train(results: Results, runner: Runner, cell: Cell) -> CellResult:
    """Train a cell; returns and writes its result."""
    directory, cold, levels = results.run(cell), results.cold(cell), cell.recipe.evaluation.levels
    before = _read(cold / "test.json") if levels else {}
    learn = _learn_from_failures if cell.preferences else _reinforce
    evaluations = learn(results, runner, cell, before)
    rows, _ = read_rows(directory / "metrics.jsonl")
    start = _read(cold / "dev.json")[cell.recipe.evaluation.dev_level].success
    saved = {
        "arm": cell.arm,
        "seed": cell.recipe.seed,
        "recipe": cell.recipe.name,
        "curve": curve(rows, start),
        "training_success": [round(row["success"], 4) for row in rows],
        "explore_ratio": [round(row["explore_ratio"], 4) for row in rows],
        **{moment: _measures(levels) for moment, levels in evaluations.items()},
        "settings": encode(cell.recipe),
    }
    result = cast(CellResult, saved)
    if cell.preferences:
        result["preferences"] = encode(cell.preferences)
    else:
        result["training"] = {name: [round(row[name], 4) for row in rows] for name in WATCHED}
    results.save(cell, result)
    return result


def _evaluate(runner: Runner, log: Path, directory: Path, split: str, *options: str) -> dict[str, LevelResult]:
    if not (path := directory / f"{split}.json").exists():
        runner.call(log, "eval", str(directory), *options, "--out", str(path))
    return _read(path)


def _reinforce(results: Results, runner: Runner, cell: Cell, before: Levels) -> Mapping[str, Levels]:
    """Evaluations before and after RL."""
    directory = results.run(cell)
    if not (directory / "recipe.json").exists():
        with atomic_directory(directory) as work:
            run = Run.create(work, cell.recipe)
            run.save_evaluation("before", before)
            if not cell.recipe.iterations:  # the cold start is the last model
                run.save_evaluation("after", before)
            shutil.copytree(results.cold(cell) / "checkpoints" / "cold-start", run.checkpoints / "cold-start")
    runner.call(results.log(cell), "train", "--resume", str(directory))
    return Run.open(directory, foreign=lambda _: True).evaluations()


def _learn_from_failures(results: Results, runner: Runner, cell: Cell, before: Levels) -> Mapping[str, Levels]:
    """Evaluations before and after ETO."""
    directory, log = results.run(cell), results.log(cell)
    words = cell.preferences.words() if cell.preferences else []
    runner.call(log, "eto", str(results.cold(cell)), "--out", str(directory), "--probe", "0", *words)
    levels = cell.recipe.evaluation.levels
    after = _evaluate(runner, log, directory, "test", "--level", *levels) if levels else {}
    return {"before": before, "after": after}


def _further_evaluation(results: Results, runner: Runner, cell: Cell, options: str) -> dict[str, JsonObject]:
    """A further evaluation of the last model of a run; one that was stopped continues."""
    directory = results.run(cell)
    if not directory.exists():  # the result comes from another machine, without this evaluation
        place, remedy = (
            (results.file(cell), "delete it")
            if results.file(cell).exists()
            else (f"{cell.name} in the file of --results", "leave that out")
        )
        raise UsageError(f"{place} holds no evaluation {options}, and its run is not here: {remedy} to run the cell again")
    folder = directory / "evaluations" / slug(options)
    words = [*shlex.split(options), "--level", *cell.recipe.evaluation.levels, "--out", str(folder)]
    runner.call(results.log(cell), "eval", str(directory), *words)
    return _measures(_read(folder / "results.json"))


def curve(rows: Sequence[Mapping[str, float]], start: float) -> list[dict[str, float]]:
    """Held-out success and the costs so far, at the cold start and at each iteration with an evaluation.

    Args:
        rows: rows of metrics.jsonl, in order. The `env_steps` of the curve include replayed steps.
        start: success of the cold start.
    """
    spent = dict.fromkeys(SUMS, 0.0)
    points = [{"iteration": 0.0, **spent, "success": start}]
    for row in rows:
        costs = {**row, "leaves": row["leaves"] * row["trees"], "env_steps": row["env_steps"] + row["replayed"]}
        spent = {name: spent[name] + costs[name] for name in SUMS}
        if "dev_success" in row:
            point = {"iteration": row["iteration"], **spent, "success": row["dev_success"]}
            points.append({name: round(value, 4) for name, value in point.items()})
    return points


def _read(file: Path) -> dict[str, LevelResult]:
    """The results in a file of `spark-rl eval`."""
    return levels_from_json(json.loads(file.read_text()))


def _measures(levels: Levels) -> dict[str, JsonObject]:
    """The measures of an evaluation that a result holds, by level; `from_json(..., needed=())` reads each."""
    return {level: _of_level(found) for level, found in levels.items()}


def _of_level(found: LevelResult) -> JsonObject:
    numbers: JsonObject = {name: round(getattr(found, name), 4) for name in MEASURES}
    return numbers | {name: table for name, table in to_json(found).items() if name in TABLES}
