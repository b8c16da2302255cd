"""A run directory: everything a run was asked and everything it found.

    recipe.json            the resolved recipe and what was measured at the start (threads)
    demonstrations.jsonl   what the cold start learnt from
    metrics.jsonl          one line an iteration
    forests/               every tree grown, newest kept (`store`)
    checkpoints/           cold-start, then numbered ones (`checkpoint`)
    eval.json              {"before" | "after": {level: the fields of `evaluation.results.LevelResult`}}

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

__all__ = ["Run", "read_rows"]

RECIPE = "recipe.json"


def read_rows(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Rows of a metrics.jsonl, oldest first, up to the first line that cannot be read, and how many lines are left out.

    What follows a broken line was not written by a run.
    """
    rows: list[dict[str, Any]] = []
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict):
            break
        rows.append(cast("dict[str, Any]", row))
    return rows, len(lines) - len(rows)


class Run:
    """A run directory, open for reading and writing."""

    def __init__(self, directory: Path, recipe: Recipe, settings: Mapping[str, Any]) -> None:
        self.directory = directory
        self.recipe = recipe
        self.settings = dict(settings)
        """What was measured at the start and must stay: `threads`. And how `spark-rl eto` made it, where it did: `eto`."""

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
        """Open an existing run; `foreign` is asked before the recipe imports a class from outside this package.

        Raises:
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
        """How the run learnt from its failures, where `spark-rl eto` made it."""
        made = self.settings.get("eto")
        return cast(Preferences, decode(made["preferences"])) if made else None

    def save_settings(self, **settings: Any) -> None:
        """Add to `settings` and write recipe.json."""
        self.settings.update(settings)
        saved = {"version": __version__, "recipe": encode(self.recipe), "settings": self.settings}
        write_json(self.directory / RECIPE, saved)

    # -- metrics ----------------------------------------------------------------------------------------------------

    def metrics(self) -> list[dict[str, float]]:
        """The rows logged so far, oldest first; a line cut short by a crash is left out."""
        return read_rows(self.directory / "metrics.jsonl")[0]

    def log(self, row: Mapping[str, float]) -> None:
        """Append one iteration's row."""
        file = self.directory / "metrics.jsonl"
        try:
            with file.open("a") as handle:
                handle.write(json.dumps(dict(row)) + "\n")
        except OSError as error:
            raise StorageError(f"{file} could not be written ({error.strerror}); free some space, then --resume") from error

    def rewind(self, iteration: int) -> None:
        """Forget rows and forests after an iteration, because the run continues from its checkpoint."""
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
        """What the cold start learns from."""
        return self.directory / "demonstrations.jsonl"

    def save_forest(self, forest: Forest) -> None:
        """Write the forest of its iteration and drop the oldest beyond `recipe.keep.forests`."""
        save_forest(forest, forest_path(self.forests, forest.iteration))
        prune_forests(self.forests, self.recipe.keep.forests)

    def evaluations(self) -> dict[str, dict[str, LevelResult]]:
        """The content of eval.json, by moment and level; empty before the first evaluation.

        Raises:
            StorageError: it holds something else.
        """
        try:
            return {moment: levels_from_json(levels) for moment, levels in self._evaluations().items()}
        except StorageError as error:
            file = self.directory / "eval.json"
            raise StorageError(f"{file}: {error}; delete it to evaluate again with --resume") from error

    def save_evaluation(self, moment: str, results: Levels) -> None:
        """Set eval.json's `before` or `after`; the other stays as it is."""
        write_json(self.directory / "eval.json", {**self._evaluations(), moment: levels_to_json(results)})

    def _evaluations(self) -> dict[str, Any]:
        file = self.directory / "eval.json"
        return json.loads(file.read_text()) if file.exists() else {}

    @property
    def finished(self) -> bool:
        """Whether the run has trained all its iterations and evaluated what came out."""
        return "after" in self._evaluations()
