"""A run directory: the settings and all results of a run.

    recipe.json              the resolved recipe, and settings measured at the start (threads)
    demonstrations.jsonl.gz  the demonstrations of the cold start
    metrics.jsonl            one line for each iteration
    forests/                 the trees of the newest iterations (`forests`)
    checkpoints/             cold-start, then numbered ones (`checkpoints`)
    eval.json                {"before" | "after": {level: the fields of `evaluation.results.LevelResult`}}

Invariant: each file is written whole or appended by whole lines, so a run that was killed at any moment can be read
and resumed. This module reads and writes files and imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from spark_rl import __version__
from spark_rl.common.files import write_bytes, write_json
from spark_rl.config.codec import decode, encode
from spark_rl.config.recipe import Recipe
from spark_rl.errors import StorageError, UsageError
from spark_rl.evaluation.results import LevelResult, Levels, levels_from_json, levels_to_json
from spark_rl.objective.preferences import Preferences
from spark_rl.runs.forests import forest_path, prune_forests, save_forest
from spark_rl.types import Forest

__all__ = ["Follower", "Run", "read_rows"]

RECIPE = "recipe.json"


def read_rows(file: Path) -> tuple[list[dict[str, float]], int]:
    """Rows of a metrics.jsonl, oldest first, up to the first line that cannot be read, and the number of lines left out.

    A run writes no lines after a broken one, so none of them is read.
    """
    rows: list[dict[str, float]] = []
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict):
            break
        rows.append(cast("dict[str, float]", row))
    return rows, len(lines) - len(rows)


class Run:
    """A run directory, open for reading and writing."""

    def __init__(self, directory: Path, recipe: Recipe, settings: Mapping[str, Any]) -> None:
        self.directory = directory
        self.recipe = recipe
        self.settings = dict(settings)
        """Settings that are measured at the start and stay the same when the run is resumed (`threads`). A run of
        `spark-rl eto` also has the settings of that command (`eto`)."""

    @classmethod
    def create(cls, directory: Path, recipe: Recipe) -> Run:
        """Start a run in an empty or new directory.

        Raises:
            UsageError: the directory already holds a run.
        """
        if (directory / RECIPE).exists():
            raise UsageError(f"{directory} already holds a run: --resume {directory} continues it; or give another --out")
        run = cls(directory, recipe, {})
        run.save_settings()
        return run

    @classmethod
    def open(cls, directory: Path, *, foreign: Callable[[str], bool] = lambda _: False) -> Run:
        """Open an existing run.

        Args:
            directory: the run directory.
            foreign: decides whether the recipe may import a class from outside this package, by the class's name.

        Raises:
            StorageError: the recipe cannot be read.
            UsageError: the directory holds no run.
        """
        file = directory / RECIPE
        if not file.exists():
            raise UsageError(f"{directory} holds no run (there is no {RECIPE}); name the --out of an earlier run")
        try:
            saved = json.loads(file.read_text())
            recipe, settings = decode(saved["recipe"], foreign=foreign), saved["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{file} cannot be read ({error!r}); restore it or start a new run") from error
        if not isinstance(recipe, Recipe):
            raise StorageError(f"{file} holds no recipe; restore it or start a new run")
        return cls(directory, recipe, settings)

    @property
    def preferences(self) -> Preferences | None:
        """Settings of preference learning in a run of `spark-rl eto`; None in other runs."""
        eto = self.settings.get("eto")
        return cast(Preferences, decode(eto["preferences"])) if eto else None

    def save_settings(self, **settings: object) -> None:
        """Add to `settings` and write recipe.json."""
        self.settings.update(settings)
        saved = {"version": __version__, "recipe": encode(self.recipe), "settings": self.settings}
        write_json(self.directory / RECIPE, saved)

    # -- metrics ----------------------------------------------------------------------------------------------------

    def metrics(self) -> list[dict[str, float]]:
        """The rows of the log so far, oldest first; a line that a crash cut short is left out."""
        return read_rows(self.directory / "metrics.jsonl")[0]

    def log(self, row: Mapping[str, float]) -> None:
        """Append the row of one iteration."""
        file = self.directory / "metrics.jsonl"
        try:
            with file.open("a") as handle:
                handle.write(json.dumps(dict(row)) + "\n")
        except OSError as error:
            raise StorageError(f"{file} could not be written ({error.strerror}); free some space, then --resume") from error

    def rewind(self, iteration: int) -> None:
        """Delete rows and forests of later iterations, because the run resumes from the checkpoint of this one."""
        rows = [row for row in self.metrics() if row["iteration"] <= iteration]
        if (self.directory / "metrics.jsonl").exists():
            write_bytes(self.directory / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
        for file in self.forests.glob("[0-9]*.jsonl.gz"):
            if int(file.name.split(".")[0]) > iteration:
                file.unlink()

    # -- forests, evaluations ---------------------------------------------------------------------------------------

    @property
    def forests(self) -> Path:
        """Folder of the forests."""
        return self.directory / "forests"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def demonstrations(self) -> Path:
        """File of the demonstrations for the cold start; runs of version 0.1.0 have one that is not compressed."""
        plain = self.directory / "demonstrations.jsonl"
        return plain if plain.exists() else self.directory / "demonstrations.jsonl.gz"

    def save_forest(self, forest: Forest) -> None:
        """Write the forest of an iteration, and delete the oldest forests beyond `recipe.keep.forests`."""
        save_forest(forest, forest_path(self.forests, forest.iteration))
        prune_forests(self.forests, self.recipe.keep.forests)

    def evaluations(self) -> dict[str, dict[str, LevelResult]]:
        """The content of eval.json, by moment and level; empty before the first evaluation.

        Raises:
            StorageError: the file holds something else.
        """
        try:
            return {moment: levels_from_json(levels) for moment, levels in self._evaluations().items()}
        except StorageError as error:
            file = self.directory / "eval.json"
            raise StorageError(f"{file}: {error}; delete it to evaluate again with --resume") from error

    def save_evaluation(self, moment: str, results: Levels) -> None:
        """Set `before` or `after` in eval.json; the other one stays unchanged."""
        write_json(self.directory / "eval.json", {**self._evaluations(), moment: levels_to_json(results)})

    def _evaluations(self) -> dict[str, Any]:
        file = self.directory / "eval.json"
        return json.loads(file.read_text()) if file.exists() else {}

    @property
    def finished(self) -> bool:
        """Whether the run has trained all its iterations and evaluated the trained policy."""
        return "after" in self._evaluations()


class Follower(Run):
    """A run that another rank writes: this process reads it and writes nothing."""

    @classmethod
    def of(cls, run: Run) -> Follower:
        """The run of another rank."""
        return cls(run.directory, run.recipe, run.settings)

    def save_settings(self, **settings: object) -> None:
        """Know the settings."""
        self.settings.update(settings)

    def log(self, row: Mapping[str, float]) -> None:
        """The first rank does it."""

    def rewind(self, iteration: int) -> None:
        """The first rank does it."""

    def save_forest(self, forest: Forest) -> None:
        """The first rank does it."""

    def save_evaluation(self, moment: str, results: Levels) -> None:
        """The first rank does it."""
