"""Results of a comparison: where they lie, which cells have one, and whether it is theirs.

    DIR/cold/seed-S[.START]/     a run that stops after its cold start, which all arms of the seed and start begin with
    DIR/runs/seed-S/ARM/         the run of a cell; a cell that was killed continues from its last checkpoint
    DIR/cells/seed-S.ARM.json    its result, written whole when the run has finished; a cell that has one is not run again
    DIR/logs/                    what each process printed

Invariants
----------
* A result belongs to the settings it was made with, which it holds: a directory with others is refused, never mixed. The
  code of a user's own arm is not among them.
* A study's file (`compare.study`) is only read. A line of it is the result of the cell that has its seed and its settings,
  whatever the arm is called there, since names of the paper's cells change with the names of classes. What lies in
  DIR/cells comes first.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spark_rl.common.files import write_json
from spark_rl.config.codec import decode, encode
from spark_rl.config.recipe import Recipe
from spark_rl.errors import UsageError
from spark_rl.experiments.compare.cells import Cell, cold_recipe, shared, slug
from spark_rl.experiments.compare.study import read_study, unpack
from spark_rl.objective.preferences import Preferences
from spark_rl.runs.run import Run

__all__ = ["Results", "Study"]


@dataclass(frozen=True)
class Study:
    """Results that were made elsewhere, in one file."""

    path: Path
    results: tuple[tuple[Recipe, Preferences | None, dict[str, Any]], ...]
    """The settings of each, read, and the result."""

    @classmethod
    def read(cls, path: Path) -> Study:
        """All results of a file.

        Raises:
            UsageError: it is no such file, or holds settings that cannot be read.
        """
        results = unpack(*read_study(path))
        return cls(path, tuple((_settings(result), _settings(result, "preferences"), result) for result in results))

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell, if the file has one.

        Raises:
            UsageError: it has one of the cell's name that was made with other settings.
        """
        for recipe, preferences, result in self.results:
            if (recipe, preferences) == (cell.recipe, cell.preferences):
                return copy.deepcopy(result) | {"arm": cell.arm}
        if any((result["arm"], recipe.seed) == (cell.arm, cell.recipe.seed) for recipe, _, result in self.results):
            raise UsageError(f"{self.path} holds {cell.name} with other settings: set those of the file, or leave it out")
        return None


@dataclass(frozen=True)
class Results:
    """The directory of a comparison."""

    out: Path
    studies: tuple[Study, ...] = ()
    """Whose results count as well."""

    # -- places -----------------------------------------------------------------------------------------------------

    def file(self, cell: Cell) -> Path:
        """Where the result of a cell is written."""
        return self.out / "cells" / f"{cell.name}.json"

    def run(self, cell: Cell) -> Path:
        """The run directory of a cell."""
        return self.out / "runs" / f"seed-{cell.recipe.seed}" / slug(cell.arm)

    def cold(self, cell: Cell) -> Path:
        """The run directory of the cold start that a cell begins with."""
        return self.out / "cold" / ".".join(filter(None, (f"seed-{cell.recipe.seed}", cell.start)))

    def log(self, cell: Cell) -> Path:
        """What the processes of a cell print."""
        return self.out / "logs" / f"{cell.name}.log"

    # -- results ----------------------------------------------------------------------------------------------------

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell, if it has one.

        Raises:
            UsageError: it was made with other settings.
        """
        path = self.file(cell)
        if not path.exists():
            return next(filter(None, (study.result(cell) for study in self.studies)), None)
        result = json.loads(path.read_text())
        if _settings(result) != cell.recipe:
            raise UsageError(f"{path} was made with other settings: give another --out, or delete it to run the cell again")
        return result

    def save(self, cell: Cell, result: dict[str, Any]) -> None:
        """Write the result of a cell."""
        write_json(self.file(cell), result)

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
        starts = {self.cold(cell): cell for cell in reversed(cells)}
        for cell in cells:
            first = starts[self.cold(cell)]
            if shared(cell.recipe) != shared(first.recipe):
                raise UsageError(
                    f"arm {cell.arm} changes world, model, cold start or evaluation of {first.arm}: compare its like"
                )
            if self.result(cell) is None and cell.preferences is None:  # `spark-rl eto` looks at its own
                self.open(self.run(cell), cell.recipe)
        for directory, cell in starts.items():
            self.open(directory, cold_recipe(cell.recipe), shared)

    def open(self, directory: Path, recipe: Recipe, part: Callable[[Recipe], Any] = encode) -> Run | None:
        """The run in a directory, None if there is none yet.

        Raises:
            UsageError: (a part of) its recipe is another.
        """
        if not (directory / "recipe.json").exists():
            return None
        run = Run.open(directory, foreign=lambda _: True)  # the user has just named the arm
        if part(run.recipe) != part(recipe):
            raise UsageError(f"{directory} was begun with other settings: give another --out, or delete it")
        return run


def _settings(result: dict[str, Any], name: str = "settings") -> Any:
    """The recipe of a result; decoded, so that a setting that came later has the value which says "as before"."""
    return decode(result.get(name), foreign=lambda _: True)
