"""A run directory as somebody finds it: half written, of an older version, or whole.

Invariant: nothing that stands in a run directory makes reading it fail. What is missing, cut short, or cannot be read
becomes a sentence of `Reading.notes`, and the rest is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from spark_rl import __version__
from spark_rl.config.codec import decode
from spark_rl.config.recipe import Recipe
from spark_rl.errors import SparkError, StorageError, UsageError
from spark_rl.evaluation.results import LevelResult, from_json
from spark_rl.runs.forests import iterations, load_forest
from spark_rl.runs.run import read_rows
from spark_rl.types import Forest

__all__ = ["Reading", "find_runs", "is_run", "names", "read_run"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """What a run directory says."""

    directory: Path
    recipe: Recipe | None
    """None where this version cannot read it, or may not import what it uses."""
    settings: object
    """The recipe as JSON, whether or not it can be read."""
    rows: tuple[Row, ...]
    """The lines of metrics.jsonl, oldest first."""
    evaluations: dict[str, dict[str, LevelResult]]
    """The content of eval.json: moment -> level -> result."""
    forests: tuple[int, ...]
    """Iterations whose forests are kept."""
    notes: tuple[str, ...]
    """What a reader should know, a sentence each."""

    @property
    def label(self) -> str:
        """The recipe's name."""
        return str(_entry(self.settings, "name") or "unnamed")

    @property
    def seed(self) -> int | None:
        """The run's seed, if it says."""
        seed = _entry(self.settings, "seed")
        return seed if isinstance(seed, int) else None

    @property
    def planned(self) -> int | None:
        """Iterations the recipe asks for, if it says."""
        planned = _entry(self.settings, "iterations")
        return planned if isinstance(planned, int) else None

    @property
    def finished(self) -> bool:
        """Whether it has been evaluated after its last iteration."""
        return "after" in self.evaluations

    @property
    def state(self) -> str:
        """How far it is, in words."""
        if self.finished:
            return "finished"
        if not self.rows:
            return "not trained"
        return (
            f"{len(self.rows)} of {self.planned} iterations" if self.planned is not None else f"{len(self.rows)} iterations"
        )

    def open_forest(self, iteration: int) -> Forest | str:
        """A kept forest, or the sentence that says why it cannot be read."""
        try:
            return load_forest(self.directory, iteration)
        except StorageError as error:
            return str(error)


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """The run directories that are named, or that lie in a folder that is named; each once.

    Raises:
        UsageError: a path is not there, or holds no run.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise UsageError(f"{path} is no folder; name the --out of a run, or a folder of runs")
        runs = list(_below(path))
        if not runs:
            raise UsageError(f"{path} holds no run (there is no recipe.json); name the --out of a run, or a folder of runs")
        found |= dict.fromkeys(runs)
    return list(found)


def names(directories: Sequence[Path]) -> list[str]:
    """A short name for each directory, unlike the others': its last parts, as many as it takes."""
    parts = [directory.resolve().parts for directory in directories]
    for length in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(part[-length:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return [str(directory) for directory in directories]


def read_run(directory: Path, *, foreign: Callable[[str], bool] = lambda _: False) -> Reading:
    """Read what there is.

    Args:
        directory: of a run.
        foreign: asked before the recipe imports a class from outside this package.
    """
    notes: list[str] = []
    saved = _object(directory / "recipe.json", notes)
    settings = saved.get("recipe")
    rows = _rows(directory / "metrics.jsonl", notes)
    evaluations = _evaluations(directory / "eval.json", notes)
    kept = tuple(iterations(directory / "forests"))
    recipe = _recipe(settings, str(saved.get("version", "unknown")), foreign, notes)
    unfinished = rows and "after" not in evaluations
    if unfinished and not any((directory / "checkpoints").glob("[0-9]*")):
        notes.append("There is no checkpoint: the run can be looked at, but neither resumed nor evaluated.")
    return Reading(directory, recipe, settings, tuple(rows), evaluations, kept, tuple(notes))


def is_run(path: Path) -> bool:
    """Whether a folder holds anything of a run."""
    return any((path / name).exists() for name in ("recipe.json", "metrics.jsonl", "forests"))


def _below(path: Path) -> Iterator[Path]:
    """Runs in a folder, in the order of their names; a run is not searched, nor what is still being made."""
    if is_run(path):
        yield path
        return
    for folder in sorted(inner for inner in path.iterdir() if inner.is_dir() and not inner.name.startswith(".")):
        yield from _below(folder)


def _entry(settings: object, name: str) -> object:
    return cast("dict[str, object]", settings).get(name) if isinstance(settings, dict) else None


def _object(file: Path, notes: list[str]) -> dict[str, Any]:
    """A JSON object; empty, and noted, where there is none."""
    try:
        value = json.loads(file.read_text())
        if isinstance(value, dict):
            return cast("dict[str, Any]", value)
        notes.append(f"{file.name} holds no object and is left out.")
    except FileNotFoundError:
        notes.append(f"{file.name} is missing.")
    except (OSError, ValueError) as error:
        notes.append(f"{file.name} cannot be read ({error}) and is left out.")
    return {}


def _evaluations(file: Path, notes: list[str]) -> dict[str, dict[str, LevelResult]]:
    """Results that have what a table of results needs."""
    saved = _object(file, notes) if file.exists() else {}
    found: dict[str, dict[str, LevelResult]] = {}
    for moment, levels in saved.items():
        results = cast("dict[str, object]", levels) if isinstance(levels, dict) else {"": levels}
        for level, result in results.items():
            try:
                found.setdefault(moment, {})[level] = from_json(result)
            except StorageError:
                notes.append(f"{file.name} has no readable result of {moment} {level}, which is left out.")
        if not results:  # no level was asked for
            found[moment] = {}
    return found


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


def _recipe(settings: object, version: str, foreign: Callable[[str], bool], notes: list[str]) -> Recipe | None:
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
