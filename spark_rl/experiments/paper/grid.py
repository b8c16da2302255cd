"""The cells of the paper's tables: the runs that a table needs, each made once, also where several tables need it.

Invariants
----------
* The recipe (with the settings of ETO) identifies a cell: the name of a cell holds a hash of all settings but the seed. Two
  rows with the same settings are one cell, in one table or in several, in one command or in two. Settings at their defaults
  are not part of the hash, so that a new setting of a later version changes no name. A move of code changes no name either:
  classes and fields are hashed with their names of version 0.1.0 (`old_names`).
* Options of a user change the base recipe. The changes of a row come after them, so that the rows of a table keep their
  meaning.
* Cells with the same world, model, level, cold start and seed share a cold start. Its name is a hash of the shared settings.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, cast

from spark_rl.common.jsons import Json
from spark_rl.config.codec import default_of
from spark_rl.config.old_names import hashed_name, hashed_settings
from spark_rl.config.options import parse_recipe
from spark_rl.config.recipe import Recipe
from spark_rl.experiments.compare.cells import Cell, shared
from spark_rl.experiments.paper.benchmarks import BENCHMARKS, Scale, Size
from spark_rl.experiments.paper.table import Arm, Column, Row, Table
from spark_rl.recipes.algorithms import with_algorithm

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Grid"]

BY_LEVEL = ("success", "repetitive", "pass_at", "tokens")
"""Measures that a stand-in world (`Benchmark.stands_for`) shows at each of its levels."""
STARTS = frozenset(
    (
        *("env", "level", "prompt", "tree.horizon", "sampling.max_tokens"),
        *("model", "weights", "seed", "cold_start", "evaluation", "threads"),
    )
)
"""Settings that have always been part of the name of a cold start (`_start`)."""


@dataclass
class Grid:
    """Tables at one scale, on some benchmarks, over base recipes."""

    scale: Scale
    bases: Mapping[tuple[str, Size], Recipe]
    """Base recipe by world and size."""
    _cells: dict[tuple[str, Size, Arm, str], Cell] = field(default_factory=dict[tuple[str, Size, Arm, str], Cell])

    @property
    def worlds(self) -> list[str]:
        """Names of the benchmarks, without repetition."""
        return list(dict.fromkeys(world for world, _ in self.bases))

    # -- what a table shows -----------------------------------------------------------------------------------------

    def columns(self, table: Table) -> list[Column]:
        """The columns of a table for the benchmarks of the grid; a stand-in world has its original's, at each level."""
        return [column for world in self.worlds for column in self._columns(table, world)]

    def _columns(self, table: Table, world: str) -> Iterator[Column]:
        benchmark = BENCHMARKS[world]
        source = benchmark.stands_for or world
        seen: set[tuple[str, str, str]] = set()
        for column in (column for column in table.columns if column.world == source):
            if column.measure == "kind" and column.key not in benchmark.kinds:
                continue
            levels = [column.level]
            if benchmark.stands_for and column.measure in BY_LEVEL:
                levels += self.base(world).evaluation.levels
            for level in levels:
                if (column.measure, column.key, level) not in seen:
                    seen.add((column.measure, column.key, level))
                    yield self._placed(column, world, level)

    def _placed(self, column: Column, world: str, level: str) -> Column:
        if world == column.world:
            return column
        title = BENCHMARKS[column.world].title
        name = column.name.removeprefix(title).replace(f" {column.level}", "").strip(" ,")
        return replace(column, name=" ".join(filter(None, (world, level, name))), world=world, level=level)

    def published(self, table: Table, row: Row, column: Column) -> float | None:
        """The paper's number for a row; for a stand-in world, that of its original at the same level."""
        source = BENCHMARKS[column.world].stands_for or column.world
        for theirs, value in zip(table.columns, row.paper or [None] * len(table.columns), strict=True):
            if (theirs.world, theirs.level, theirs.measure, theirs.key) == (
                source,
                column.level,
                column.measure,
                column.key,
            ):
                return value
        return None

    def rows(self, table: Table) -> list[Row]:
        """The rows of a table at this scale, for the model sizes of the grid; models from scratch have one size."""
        sizes = {size for _, size in self.bases}
        return [row for row in table.rows if row.scale in (None, self.scale) and row.size in sizes]

    # -- what it needs ----------------------------------------------------------------------------------------------

    def cell(self, row: Row, world: str, level: str, seed: int = 0) -> Cell:
        """The cell of a row on a world, evaluated at a level, with the seed of the base recipe plus `seed`.

        If the base recipe evaluates the level, the cell is its run; else the cell trains and evaluates at that level alone.
        """
        assert row.arm is not None, "a row with the paper's numbers alone has no cell"
        base = self.base(world, row.size)
        place = "" if level in base.evaluation.levels else level
        if (key := (world, row.size, row.arm, place)) not in self._cells:
            recipe = self._changed(base, row.arm, world, place)
            anywhere = replace(recipe, seed=0)
            start = f"{recipe.name}.{_digest(_start(anywhere))}"
            evaluations = (row.arm.evaluation,) if row.arm.evaluation else ()
            preferences = row.arm.preferences
            digest = _digest((anywhere, preferences) if preferences else anywhere)
            self._cells[key] = Cell(f"{recipe.name}.{digest}", recipe, start, evaluations, preferences)
        cell = self._cells[key]
        return replace(cell, recipe=replace(cell.recipe, seed=cell.recipe.seed + seed))

    def needed(self, table: Table, seed: int = 0) -> list[Cell]:
        """The cells behind all numbers of a table, without repetition, with all their evaluations."""
        return _merged(
            self.cell(row, column.world, level, seed)
            for row in self.rows(table)
            if row.arm is not None
            for column in self.columns(table)
            for level in ([column.level, column.key] if column.measure == "drop" else [column.level])
        )

    def groups(self, tables: Sequence[Table], seeds: int) -> list[list[Cell]]:
        """The cells of several tables, without repetition, seed by seed, in groups with one cold start each."""
        groups: list[list[Cell]] = []
        for seed in range(seeds):
            starts: dict[str, list[Cell]] = {}
            for cell in _merged(cell for table in tables for cell in self.needed(table, seed)):
                starts.setdefault(cell.start, []).append(cell)
            groups += starts.values()
        return groups

    def base(self, world: str, size: Size | None = None) -> Recipe:
        """The base recipe of a world and size; None takes the first size."""
        return next(base for (name, of), base in self.bases.items() if name == world and size in (None, of))

    def _changed(self, base: Recipe, arm: Arm, world: str, level: str) -> Recipe:
        words = ["--level", level, "--evaluation.levels", level] if level else []
        if arm.share < 1:
            words += ["--env.train-tasks", str(round(arm.share * BENCHMARKS[world].tasks))]
            if self.scale == "tiny":
                words += ["--cold-start.demonstrations", str(round(arm.share * base.cold_start.demonstrations))]
        prog = f"the row's {arm.algorithm}"
        started = parse_recipe(base, words, prog)
        options = shlex.split(arm.options.format(world=world, level=(level or base.level)))
        return replace(parse_recipe(with_algorithm(started, arm.algorithm), options, prog), name=base.name)


def _merged(cells: Iterable[Cell]) -> list[Cell]:
    """The cells without repetition, in their order, each with the evaluations of all its occurrences."""
    merged: dict[str, Cell] = {}
    for cell in cells:
        before = merged.get(cell.name, cell).evaluations
        merged[cell.name] = replace(cell, evaluations=tuple(dict.fromkeys((*before, *cell.evaluations))))
    return list(merged.values())


def _start(recipe: Recipe) -> list[object]:
    """The settings whose hash is in the name of a cold start: those of `shared`, in the form of version 0.1.0.

    That form is a list of values without names, in this order. It never changes, since cold starts and results on disk are
    found by its hash. `shared` grows with the recipe: a newer setting is added with its name, if it is not at its default.
    It then has a cold start of its own, and changes no name otherwise.
    """
    place = (recipe.env, recipe.level, recipe.prompt, recipe.tree.horizon, recipe.sampling.max_tokens)
    settings = replace(recipe.evaluation, levels=(), every=0)
    frozen: list[object] = [*place, recipe.model, recipe.weights, recipe.seed, recipe.cold_start, settings, recipe.threads]
    usual = shared(type(recipe)(recipe.name, recipe.env))
    later: list[object] = [
        [name, value]
        for name, value in shared(recipe).items()
        if not {name, name.partition(".")[0]} & STARTS and value != usual.get(name, MISSING)
    ]
    return frozen + later


def _digest(value: object) -> str:
    """Eight hexadecimal digits of settings."""
    return hashlib.sha256(json.dumps(_hashed(value), sort_keys=True).encode()).hexdigest()[:8]


def _hashed(value: object) -> Json:
    """Settings as JSON values for a digest: without those at their defaults, with the names of digests."""
    if isinstance(value, type):
        return hashed_name(value)
    if is_dataclass(value) and not isinstance(value, type):
        settings = hashed_settings(_changes(value)) if isinstance(value, Recipe) else _changes(value)
        return {"type": hashed_name(type(value)), **{name: _hashed(inner) for name, inner in settings.items()}}
    if isinstance(value, list | tuple):
        return [_hashed(item) for item in cast("Sequence[object]", value)]
    return cast(Json, value)


def _changes(value: DataclassInstance) -> dict[str, object]:
    """The fields of a dataclass that are not at their defaults."""
    return {f.name: getattr(value, f.name) for f in fields(value) if f.init and getattr(value, f.name) != default_of(f)}
