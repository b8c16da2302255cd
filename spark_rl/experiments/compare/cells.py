"""Cells of a comparison: one arm and one seed, each a run of its own that leaves one small result file.

    DIR/cold/seed-S[.START]/     a run that stops after its cold start, which all arms of the seed and start begin with
    DIR/runs/seed-S/ARM/         the run of a cell; a cell that was killed continues from its last checkpoint
    DIR/cells/seed-S.ARM.json    its result, written whole when the run has finished; a cell that has one is not run again
    DIR/logs/                    what each process said

Invariants
----------
* All arms of a seed (and start) begin with the same weights and are evaluated on the same tasks: a difference between two
  of their cells is the algorithm's.
* An evaluation that is asked for later is added to the result; nothing that is there is made again.
* A result belongs to the settings it was made with, which it holds: a directory with others is refused, never mixed. The
  code of a user's own arm is not among them.
* Each process has one thread, so that side by side they take nothing from one another.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from spark_rl.common.files import atomic_directory, write_json
from spark_rl.config.codec import decode, encode
from spark_rl.config.recipe import Recipe
from spark_rl.errors import SparkError, UsageError
from spark_rl.evaluation.results import LevelResult, Levels, levels_from_json, to_json
from spark_rl.objective.preferences import Preferences
from spark_rl.runs.run import Run, read_rows

__all__ = ["Cell", "Plan", "curve", "prepared", "shared"]

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
FREE = frozenset(
    (
        *("name", "iterations", "tasks_per_iteration", "keep", "log", "engine.cache_gb"),
        *("branching", "tree.budget", "tree.roots", "tree.cap", "tree.counted", "sampling.temperature"),
        *("rewards", "advantage", "loss", "optimizer"),
        *("evaluation.levels", "evaluation.every"),
    )
)
"""Settings in which cells that are compared may differ: what an algorithm chooses, what says where files and memory go, and
which levels are evaluated and how often. All others must be equal, those included that a recipe may get one day."""


@dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    arm: str
    recipe: Recipe
    start: str = ""
    """Which of the seed's cold starts it begins with, where there are several."""
    evaluations: tuple[str, ...] = ()
    """Options of `spark-rl eval`: ways in which its last model is evaluated besides, on the levels of its recipe."""
    preferences: Preferences | None = None
    """After the cold start it learns so from its failures (`spark-rl eto`), and not by RL."""

    @property
    def name(self) -> str:
        """Part of its file names."""
        return f"seed-{self.recipe.seed}.{_slug(self.arm)}"


def prepared(recipe: Recipe) -> Recipe:
    """Defaults of a comparison: one thread, and no more on disk than resuming needs. What a user sets comes after."""
    every = recipe.evaluation.every or 5
    return replace(
        recipe,
        threads=1,
        evaluation=replace(recipe.evaluation, every=every),
        keep=replace(recipe.keep, forests=1, checkpoints=1, every=every),
    )


@dataclass
class Plan:
    """Where a comparison lives, and the processes it has running."""

    out: Path
    running: set[subprocess.Popen[bytes]] = field(default_factory=set[subprocess.Popen[bytes]])
    stopped: threading.Event = field(default_factory=threading.Event)

    # -- results ----------------------------------------------------------------------------------------------------

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell, if it has one.

        Raises:
            UsageError: it was made with other settings.
        """
        path = self._file(cell)
        if not path.exists():
            return None
        result = json.loads(path.read_text())
        # Decoded, so that a setting that came later has the value which says "as before".
        if decode(result["settings"], foreign=lambda _: True) != cell.recipe:
            raise UsageError(f"{path} was made with other settings: give another --out, or delete it to run the cell again")
        return result

    def done(self, cell: Cell) -> bool:
        """Whether nothing of a cell is left to do."""
        result = self.result(cell)
        return result is not None and all(options in result.get("evaluations", {}) for options in cell.evaluations)

    def check(self, cells: Sequence[Cell]) -> None:
        """Refuse cells that cannot be compared, or a directory that holds others.

        Raises:
            UsageError: which.
        """
        names = [cell.name for cell in cells]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two arms are both {name.partition('.')[2]}: name each once")
        starts = {self._cold(cell): cell for cell in reversed(cells)}
        for cell in cells:
            first = starts[self._cold(cell)]
            if shared(cell.recipe) != shared(first.recipe):
                raise UsageError(
                    f"arm {cell.arm} changes world, model, cold start or evaluation of {first.arm}: compare its like"
                )
            if self.result(cell) is None and cell.preferences is None:  # `spark-rl eto` looks at its own
                self._open(self._run(cell), cell.recipe)
        for directory, cell in starts.items():
            self._open(directory, _cold_recipe(cell.recipe), shared)

    # -- work -------------------------------------------------------------------------------------------------------

    def cold_start(self, cell: Cell) -> None:
        """Make what the cell begins with, and evaluate it on every task that the arms which begin so are evaluated on."""
        recipe, directory = _cold_recipe(cell.recipe), self._cold(cell)
        log = self.out / "logs" / f"{directory.name}.cold.log"
        if self._open(directory, recipe, shared) is None:
            Run.create(directory, recipe)
        if not (directory / "checkpoints" / "cold-start").exists():
            self._call(log, "train", "--resume", str(directory))
        settings, level = recipe.evaluation, recipe.evaluation.dev_level
        cold = ("--checkpoint", "cold-start", "--level")
        self._evaluate(log, directory, "dev", *cold, level, "--split", "dev", "--tasks", str(settings.dev_tasks))
        if levels := cell.recipe.evaluation.levels:
            self._evaluate(log, directory, "test", *cold, *levels)

    def _evaluate(self, log: Path, directory: Path, split: str, *options: str) -> dict[str, LevelResult]:
        if not (path := directory / f"{split}.json").exists():
            self._call(log, "eval", str(directory), *options, "--out", str(path))
        return _read(path)

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train a cell from its cold start, or go on with it; evaluate it as it asks; write its result.

        Raises:
            SparkError: the training or an evaluation failed; its log says how.
        """
        result = self.result(cell) or self._train(cell)
        found: dict[str, Any] = result.setdefault("evaluations", {}) if cell.evaluations else {}
        for options in cell.evaluations:
            if options not in found:
                found[options] = self._ask(cell, options)
                write_json(self._file(cell), result)
        return result

    def _train(self, cell: Cell) -> dict[str, Any]:
        """The result of a run."""
        directory, cold, levels = self._run(cell), self._cold(cell), cell.recipe.evaluation.levels
        before = _read(cold / "test.json") if levels else {}
        evaluations = self._learn_from_failures(cell, before) if cell.preferences else self._reinforce(cell, before)
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
        write_json(self._file(cell), result)
        return result

    def _reinforce(self, cell: Cell, before: Levels) -> Mapping[str, Levels]:
        """Evaluations before and after RL."""
        directory = self._run(cell)
        if not (directory / "recipe.json").exists():
            with atomic_directory(directory) as work:
                run = Run.create(work, cell.recipe)
                run.save_evaluation("before", before)
                if not cell.recipe.iterations:  # the cold start is all there is
                    run.save_evaluation("after", before)
                shutil.copytree(self._cold(cell) / "checkpoints" / "cold-start", run.checkpoints / "cold-start")
        self._call(self._log(cell), "train", "--resume", str(directory))
        return Run.open(directory, foreign=lambda _: True).evaluations()

    def _learn_from_failures(self, cell: Cell, before: Levels) -> Mapping[str, Levels]:
        """Evaluations before and after ETO."""
        directory, log = self._run(cell), self._log(cell)
        words = cell.preferences.words() if cell.preferences else []
        self._call(log, "eto", str(self._cold(cell)), "--out", str(directory), "--probe", "0", *words)
        levels = cell.recipe.evaluation.levels
        after = self._evaluate(log, directory, "test", "--level", *levels) if levels else {}
        return {"before": before, "after": after}

    def _ask(self, cell: Cell, options: str) -> dict[str, Any]:
        """One more evaluation of a run's last model; one that was stopped goes on."""
        directory = self._run(cell)
        if not directory.exists():  # a result that was copied here, made before the evaluation was asked for
            raise UsageError(
                f"{self._file(cell)} holds no evaluation {options}, and its run is not here: delete it to run the cell again"
            )
        folder = directory / "evaluations" / _slug(options)
        words = [*shlex.split(options), "--level", *cell.recipe.evaluation.levels, "--out", str(folder)]
        self._call(self._log(cell), "eval", str(directory), *words)
        return _kept(_read(folder / "results.json"))

    def stop(self) -> None:
        """End what is running; it can be continued."""
        self.stopped.set()
        for process in list(self.running):
            process.terminate()

    def _call(self, log: Path, *words: str) -> None:
        """A command in a process with one thread."""
        if self.stopped.is_set():
            raise SparkError("stopped")
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "spark_rl", *words, "--yes"]
        with log.open("ab") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            self.running.add(process)
            try:
                code = process.wait()
            finally:
                self.running.discard(process)
        if code:
            last = next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "")
            raise SparkError(f"`spark-rl {' '.join(words[:3])}` ended with code {code} ({last.strip()}); see {log}")

    # -- places -----------------------------------------------------------------------------------------------------

    def _file(self, cell: Cell) -> Path:
        return self.out / "cells" / f"{cell.name}.json"

    def _run(self, cell: Cell) -> Path:
        return self.out / "runs" / f"seed-{cell.recipe.seed}" / _slug(cell.arm)

    def _cold(self, cell: Cell) -> Path:
        return self.out / "cold" / ".".join(filter(None, (f"seed-{cell.recipe.seed}", cell.start)))

    def _log(self, cell: Cell) -> Path:
        return self.out / "logs" / f"{cell.name}.log"

    def _open(self, directory: Path, recipe: Recipe, part: Any = encode) -> Run | None:
        """The run in a directory, None if there is none yet; refused when (a part of) its recipe is another."""
        if not (directory / "recipe.json").exists():
            return None
        run = Run.open(directory, foreign=lambda _: True)  # the user has just named the arm
        if part(run.recipe) != part(recipe):
            raise UsageError(f"{directory} was begun with other settings: give another --out, or delete it")
        return run


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


def _cold_recipe(recipe: Recipe) -> Recipe:
    """Nothing but the cold start; its own evaluations are made apart, on the tasks of the cells."""
    return replace(recipe, iterations=0, evaluation=replace(recipe.evaluation, levels=(), every=0))


def shared(recipe: Recipe) -> dict[str, Any]:
    """What cells that begin alike must have in common, by name: every setting that is not in `FREE`.

    Of a component with a free setting the class and the other settings are given one by one.
    """
    found: dict[str, Any] = {}
    for field_ in fields(recipe):
        name, value = field_.name, getattr(recipe, field_.name)
        if name in FREE:
            continue
        found[name] = value
        if any(free.startswith(f"{name}.") for free in FREE):
            found[name] = type(value)
            parts = [f"{name}.{part.name}" for part in fields(value) if f"{name}.{part.name}" not in FREE]
            found |= {part: getattr(value, part.partition(".")[2]) for part in parts}
    return found


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


def _slug(name: str) -> str:
    """An arm's name, or options, as a file name."""
    return re.sub(r"[^\w-]+", ".", name).strip("-.")
