"""How a cell comes to its result: the cold start that its arms share, its training, its evaluations.

Invariants
----------
* A cell that was killed goes on from its last checkpoint to the result of an unbroken one.
* An evaluation that is asked for later is added to the result; nothing that is there is made again.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spark_rl.common.files import atomic_directory
from spark_rl.config.codec import encode
from spark_rl.errors import UsageError
from spark_rl.evaluation.results import LevelResult, Levels, levels_from_json, to_json
from spark_rl.experiments.compare.cells import Cell, cold_recipe, shared, slug
from spark_rl.experiments.compare.processes import Runner
from spark_rl.experiments.compare.results import Results
from spark_rl.runs.run import Run, read_rows

__all__ = ["cold_start", "curve", "run_cell"]

KEPT = (
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
"""Numbers that a result holds of an evaluation."""
KEPT_WHOLE = ("kinds", "averages", "pass_at", "branching")
"""What it holds besides, as it is, where it is there."""
SUMS = ("leaves", "generated", "env_steps", "unique_steps", "trained", "seconds")
"""What a result adds up from iteration to iteration."""


def cold_start(results: Results, runner: Runner, cell: Cell) -> None:
    """Make what the cell begins with, and evaluate it on every task that the arms which begin so are evaluated on."""
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


def run_cell(results: Results, runner: Runner, cell: Cell) -> dict[str, Any]:
    """Train a cell from its cold start, or go on with it; evaluate it as it asks; write its result.

    Raises:
        SparkError: the training or an evaluation failed; its log says how.
    """
    result = results.result(cell) or _train(results, runner, cell)
    found: dict[str, Any] = result.setdefault("evaluations", {}) if cell.evaluations else {}
    for options in cell.evaluations:
        if options not in found:
            found[options] = _ask(results, runner, cell, options)
            results.save(cell, result)
    return result


def _train(results: Results, runner: Runner, cell: Cell) -> dict[str, Any]:
    """The result of a run."""
    directory, cold, levels = results.run(cell), results.cold(cell), cell.recipe.evaluation.levels
    before = _read(cold / "test.json") if levels else {}
    learn = _learn_from_failures if cell.preferences else _reinforce
    evaluations = learn(results, runner, cell, before)
    rows, _ = read_rows(directory / "metrics.jsonl")
    start = _read(cold / "dev.json")[cell.recipe.evaluation.dev_level].success
    result = {
        "arm": cell.arm,
        "seed": cell.recipe.seed,
        "recipe": cell.recipe.name,
        "curve": curve(rows, start),
        "training_success": [round(row["success"], 4) for row in rows],
        "explore_ratio": [round(row["explore_ratio"], 4) for row in rows],
        **{moment: _kept(levels) for moment, levels in evaluations.items()},
        "settings": encode(cell.recipe),
    }
    if cell.preferences:
        result["preferences"] = encode(cell.preferences)
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
            if not cell.recipe.iterations:  # the cold start is all there is
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


def _ask(results: Results, runner: Runner, cell: Cell, options: str) -> dict[str, Any]:
    """One more evaluation of a run's last model; one that was stopped goes on."""
    directory = results.run(cell)
    if not directory.exists():  # the result was made elsewhere, before the evaluation was asked for
        held, instead = (
            (results.file(cell), "delete it")
            if results.file(cell).exists()
            else (f"{cell.name} in the file of --results", "leave that out")
        )
        raise UsageError(f"{held} holds no evaluation {options}, and its run is not here: {instead} to run the cell again")
    folder = directory / "evaluations" / slug(options)
    words = [*shlex.split(options), "--level", *cell.recipe.evaluation.levels, "--out", str(folder)]
    runner.call(results.log(cell), "eval", str(directory), *words)
    return _kept(_read(folder / "results.json"))


def curve(rows: Sequence[Mapping[str, float]], start: float) -> list[dict[str, float]]:
    """Held-out success and what was spent so far, at the cold start and wherever it was evaluated.

    Args:
        rows: of metrics.jsonl, in order; `env_steps` counts those replayed as well.
        start: success of the cold start.
    """
    spent = dict.fromkeys(SUMS, 0.0)
    points = [{"iteration": 0.0, **spent, "success": start}]
    for row in rows:
        here = {**row, "leaves": row["leaves"] * row["trees"], "env_steps": row["env_steps"] + row["replayed"]}
        spent = {name: spent[name] + here[name] for name in SUMS}
        if "dev_success" in row:
            point = {"iteration": row["iteration"], **spent, "success": row["dev_success"]}
            points.append({name: round(value, 4) for name, value in point.items()})
    return points


def _read(file: Path) -> dict[str, LevelResult]:
    """What `spark-rl eval` wrote."""
    return levels_from_json(json.loads(file.read_text()))


def _kept(levels: Levels) -> dict[str, dict[str, Any]]:
    """What a result holds of an evaluation, by level; `from_json(..., needed=())` reads it."""
    whole = {level: to_json(found) for level, found in levels.items()}
    return {
        level: {name: round(found[name], 4) for name in KEPT} | {name: found[name] for name in KEPT_WHOLE if name in found}
        for level, found in whole.items()
    }
