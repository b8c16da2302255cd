"""The directory of a comparison: the places of runs and results, and which cells have a result.

    DIR/cold/seed-S[.START]/     the run of a cold start, with which all arms of the seed and start begin
    DIR/runs/seed-S/ARM/         the run of a cell; a cell that was killed continues from its last checkpoint
    DIR/cells/seed-S.ARM.json    the result of a cell, written when its run has finished; the cell is not run again
    DIR/logs/                    the output of each process

Invariants
----------
* A result holds the settings of its run. A directory with results of other settings is refused. The code of a user's own
  arm is not part of the settings.
* The file of a study (`compare.study`) is only read. A line of the file is the result of the cell with the same seed and
  settings, even if the arm has another name there. A result in DIR/cells comes before one in a file.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from spark_rl.common.files import write_json
from spark_rl.config.codec import decode, encode
from spark_rl.config.recipe import Recipe
from spark_rl.errors import UsageError
from spark_rl.experiments.compare.cells import Cell, CellResult, cold_recipe, shared, slug
from spark_rl.experiments.compare.study import read_study, unpack
from spark_rl.objective.preferences import Preferences
from spark_rl.runs.run import Run

__all__ = ["Results", "Study"]


@dataclass(frozen=True)
class Study:
    """Results of another directory, in one file."""

    path: Path
    results: tuple[tuple[Recipe, Preferences | None, CellResult], ...]
    """Recipe, settings of ETO and result of each cell."""

    @classmethod
    def read(cls, path: Path) -> Study:
        """All results of a file.

        Raises:
            UsageError: the file holds no results, or settings that cannot be read.
        """
        results = unpack(*read_study(path))
        return cls(path, tuple((_settings(result), _settings(result, "preferences"), result) for result in results))

    def result(self, cell: Cell) -> CellResult | None:
        """The result of a cell, if the file has one.

        Raises:
            UsageError: the file has a result of the same arm and seed with other settings.
        """
        for recipe, preferences, result in self.results:
            if (recipe, preferences) == (cell.recipe, cell.preferences):
                return {**copy.deepcopy(result), "arm": cell.arm}
        if any((result["arm"], recipe.seed) == (cell.arm, cell.recipe.seed) for recipe, _, result in self.results):
            raise UsageError(f"{self.path} holds {cell.name} with other settings: set those of the file, or leave it out")
        return None


@dataclass(frozen=True)
class Results:
    """The directory of a comparison."""

    out: Path
    studies: tuple[Study, ...] = ()
    """Files with further results."""

    # -- places -----------------------------------------------------------------------------------------------------

    def file(self, cell: Cell) -> Path:
        """The file of the result of a cell."""
        return self.out / "cells" / f"{cell.name}.json"

    def run(self, cell: Cell) -> Path:
        """The run directory of a cell."""
        return self.out / "runs" / f"seed-{cell.recipe.seed}" / slug(cell.arm)

    def cold(self, cell: Cell) -> Path:
        """The run directory of the cold start of a cell."""
        return self.out / "cold" / ".".join(filter(None, (f"seed-{cell.recipe.seed}", cell.start)))

    def log(self, cell: Cell) -> Path:
        """The file with the output of the processes of a cell."""
        return self.out / "logs" / f"{cell.name}.log"

    # -- results ----------------------------------------------------------------------------------------------------

    def result(self, cell: Cell) -> CellResult | None:
        """The result of a cell, if it has one.

        Raises:
            UsageError: the result was made with other settings.
        """
        path = self.file(cell)
        if not path.exists():
            return next(filter(None, (study.result(cell) for study in self.studies)), None)
        result = cast(CellResult, json.loads(path.read_text()))
        if _settings(result) != cell.recipe:
            raise UsageError(f"{path} was made with other settings: give another --out, or delete it to run the cell again")
        return result

    def save(self, cell: Cell, result: CellResult) -> None:
        """Write the result of a cell."""
        write_json(self.file(cell), result)

    def done(self, cell: Cell) -> bool:
        """Whether a cell has its result, with all of its evaluations."""
        result = self.result(cell)
        return result is not None and all(options in result.get("evaluations", {}) for options in cell.evaluations)

    def check(self, cells: Sequence[Cell]) -> None:
        """Refuse cells that cannot be compared, or a directory with runs of other settings.

        Raises:
            UsageError: the sentence names the arm or the directory.
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
            if self.result(cell) is None and cell.preferences is None:  # `spark-rl eto` checks its own run
                self.open(self.run(cell), cell.recipe)
        for directory, cell in starts.items():
            self.open(directory, cold_recipe(cell.recipe), shared)

    def open(self, directory: Path, recipe: Recipe, part: Callable[[Recipe], object] = encode) -> Run | None:
        """The run in a directory, None if there is none yet.

        Args:
            directory: the directory of the run.
            recipe: the recipe that the run must have.
            part: the part of the recipe that must be equal.

        Raises:
            UsageError: the run has another recipe.
        """
        if not (directory / "recipe.json").exists():
            return None
        run = Run.open(directory, foreign=lambda _: True)  # the user has named the arm on the command line
        if part(run.recipe) != part(recipe):
            raise UsageError(f"{directory} was begun with other settings: give another --out, or delete it")
        return run


def _settings(result: CellResult, name: str = "settings") -> Any:
    """The recipe of a result. It is decoded, so that a setting of a later version has its default."""
    return decode(result.get(name), foreign=lambda _: True)
