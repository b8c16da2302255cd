"""Reads a run directory in any state: complete, half written, or of an older version.

Invariant: no content of a run directory makes reading fail. A part that is missing, cut short or unreadable becomes a
sentence of `Reading.notes`, and the other parts are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from spark_rl import __version__
from spark_rl.common.jsons import Json, JsonObject
from spark_rl.config.codec import decode
from spark_rl.config.recipe import Recipe
from spark_rl.errors import SparkError, StorageError, UsageError
from spark_rl.evaluation.results import LevelResult, from_json
from spark_rl.runs.forests import iterations, load_forest
from spark_rl.runs.run import read_rows
from spark_rl.types import Forest

__all__ = ["Reading", "find_runs", "is_run", "names", "read_run"]

Row = dict[str, float]


@dataclass(frozen=True)
class Reading:
    """The content of a run directory."""

    directory: Path
    recipe: Recipe | None
    """The recipe; None where this version cannot read it, or may not import one of its classes."""
    settings: Json
    """The recipe as JSON, even if this version cannot read it."""
    rows: tuple[Row, ...]
    """The lines of metrics.jsonl, oldest first."""
    evaluations: dict[str, dict[str, LevelResult]]
    """The content of eval.json: moment -> level -> result."""
    forests: tuple[int, ...]
    """Iterations whose forests are on disk."""
    notes: tuple[str, ...]
    """Sentences about missing and unreadable parts."""

    @property
    def label(self) -> str:
        """Name of the recipe."""
        return str(_entry(self.settings, "name") or "unnamed")

    @property
    def seed(self) -> int | None:
        """Seed of the run, if the recipe has one."""
        seed = _entry(self.settings, "seed")
        return seed if isinstance(seed, int) else None

    @property
    def planned(self) -> int | None:
        """Number of iterations in the recipe, if the recipe has it."""
        planned = _entry(self.settings, "iterations")
        return planned if isinstance(planned, int) else None

    @property
    def finished(self) -> bool:
        """Whether the run has an evaluation after its last iteration."""
        return "after" in self.evaluations

    @property
    def state(self) -> str:
        """Progress of the run, in words."""
        if self.finished:
            return "finished"
        if not self.rows:
            return "not trained"
        return (
            f"{len(self.rows)} of {self.planned} iterations" if self.planned is not None else f"{len(self.rows)} iterations"
        )

    def open_forest(self, iteration: int) -> Forest | str:
        """A saved forest, or the sentence with the reason why it cannot be read."""
        try:
            return load_forest(self.directory, iteration)
        except StorageError as error:
            return str(error)


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """The run directories at some paths and in the folders at these paths, without repetition.

    Raises:
        UsageError: a path does not exist, or holds no run.
    """
    directories: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise UsageError(f"{path} is no folder; name the --out of a run, or a folder of runs")
        runs = list(_below(path))
        if not runs:
            raise UsageError(f"{path} holds no run (there is no recipe.json); name the --out of a run, or a folder of runs")
        directories |= dict.fromkeys(runs)
    return list(directories)


def names(directories: Sequence[Path]) -> list[str]:
    """A short unique name for each directory: as few of its last parts as make the names unique."""
    parts = [directory.resolve().parts for directory in directories]
    for length in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(part[-length:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return [str(directory) for directory in directories]


def read_run(directory: Path, *, foreign: Callable[[str], bool] = lambda _: False) -> Reading:
    """Read a run directory.

    Args:
        directory: the directory of the run.
        foreign: called with the name of a class from outside this package before its import; False refuses the class.
    """
    notes: list[str] = []
    saved = _object(directory / "recipe.json", notes)
    settings = saved.get("recipe")
    rows = _rows(directory / "metrics.jsonl", notes)
    evaluations = _evaluations(directory / "eval.json", notes)
    forests = tuple(iterations(directory / "forests"))
    recipe = _recipe(settings, str(saved.get("version", "unknown")), foreign, notes)
    unfinished = rows and "after" not in evaluations
    if unfinished and not any((directory / "checkpoints").glob("[0-9]*")):
        notes.append("There is no checkpoint: the run can be looked at, but neither resumed nor evaluated.")
    return Reading(directory, recipe, settings, tuple(rows), evaluations, forests, tuple(notes))


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return any((path / name).exists() for name in ("recipe.json", "metrics.jsonl", "forests"))


def _below(path: Path) -> Iterator[Path]:
    """Runs in a folder, in the order of their names; run directories and hidden folders are not searched."""
    if is_run(path):
        yield path
        return
    for folder in sorted(inner for inner in path.iterdir() if inner.is_dir() and not inner.name.startswith(".")):
        yield from _below(folder)


def _entry(settings: Json, name: str) -> Json:
    return settings.get(name) if isinstance(settings, dict) else None


def _object(file: Path, notes: list[str]) -> JsonObject:
    """The JSON object of a file; empty, with a note, where there is none."""
    try:
        value = json.loads(file.read_text())
        if isinstance(value, dict):
            return cast(JsonObject, value)
        notes.append(f"{file.name} holds no object and is left out.")
    except FileNotFoundError:
        notes.append(f"{file.name} is missing.")
    except (OSError, ValueError) as error:
        notes.append(f"{file.name} cannot be read ({error}) and is left out.")
    return {}


def _evaluations(file: Path, notes: list[str]) -> dict[str, dict[str, LevelResult]]:
    """The results with all fields that a table of results needs."""
    saved = _object(file, notes) if file.exists() else {}
    evaluations: dict[str, dict[str, LevelResult]] = {}
    for moment, levels in saved.items():
        results = levels if isinstance(levels, dict) else {"": levels}
        for level, result in results.items():
            try:
                evaluations.setdefault(moment, {})[level] = from_json(result)
            except StorageError:
                notes.append(f"{file.name} has no readable result of {moment} {level}, which is left out.")
        if not results:  # the recipe evaluates no level
            evaluations[moment] = {}
    return evaluations


def _rows(file: Path, notes: list[str]) -> list[Row]:
    try:
        rows, left_out = read_rows(file)
    except OSError as error:
        notes.append(f"{file.name} cannot be read ({error}) and is left out.")
        return []
    if left_out:
        what = "last line was" if left_out == 1 else f"lines from {len(rows) + 1} on were"
        notes.append(f"The {what} cut short or broken in {file.name}, and left out.")
    return rows


def _recipe(settings: Json, version: str, foreign: Callable[[str], bool], notes: list[str]) -> Recipe | None:
    if settings is None:
        notes.append("Without its recipe, advantages cannot be shown.")
        return None
    try:
        recipe = decode(settings, foreign=foreign)
    except SparkError as error:
        written = "" if version == __version__ else f" (written by version {version}, this is {__version__})"
        notes.append(f"Its recipe cannot be used{written}, so advantages are not shown: {error}.")
        return None
    if isinstance(recipe, Recipe):
        return recipe
    notes.append("recipe.json holds no recipe, so advantages are not shown.")
    return None
