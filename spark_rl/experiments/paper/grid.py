"""From tables to cells: which runs a table needs, each made once however many tables ask for it.

Invariants
----------
* A cell is known by its recipe (and ETO's settings): its name holds a hash of all settings but the seed, so that two rows
  which come to the same settings are one cell, in one table or in several, in one call or in two. Settings at their
  defaults are left out of the hash, so that one which comes with a later version changes no name. Nor does a move of
  code: classes and fields are hashed under the names that version 0.1.0 gave them (`old_names`).
* Fields that a user sets belong to the base; what a row changes comes after them, so that the axis of a table stays its own.
* Cells that begin alike (same world, model, level, cold start, seed) share a cold start, under a hash of what they share.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from typing import Any, cast

from spark_rl.config.old_names import hashed_name, hashed_settings
from spark_rl.config.options import parse_recipe
from spark_rl.config.recipe import Recipe
from spark_rl.experiments.compare.cells import Cell, shared
from spark_rl.experiments.paper.benchmarks import BENCHMARKS, Scale, Size
from spark_rl.experiments.paper.table import Arm, Column, Row, Table
from spark_rl.recipes.algorithms import with_algorithm

__all__ = ["Grid"]

BY_LEVEL = ("success", "repetitive", "pass_at", "tokens")
"""Measures that a world which stands for another shows at each of its levels."""
STARTS = frozenset(
    (
        *("env", "level", "prompt", "tree.horizon", "sampling.max_tokens"),
        *("model", "weights", "seed", "cold_start", "evaluation", "threads"),
    )
)
"""Settings that the name of a cold start has always held (`_start`)."""


@dataclass
class Grid:
    """Tables at one scale, on some benchmarks, over base recipes."""

    scale: Scale
    bases: Mapping[tuple[str, Size], Recipe]
    """By world and size."""
    _made: dict[tuple[str, Size, Arm, str], Cell] = field(default_factory=dict[tuple[str, Size, Arm, str], Cell])

    @property
    def worlds(self) -> list[str]:
        """Benchmarks, each once."""
        return list(dict.fromkeys(world for world, _ in self.bases))

    # -- what a table shows -----------------------------------------------------------------------------------------

    def columns(self, table: Table) -> list[Column]:
        """Its columns on the benchmarks at hand; a world that stands for another has that one's, at each of its levels."""
        return [found for world in self.worlds for found in self._columns(table, world)]

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
        """The paper's number; beside a world that stands for another, that of the other at the same level."""
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
        """Its rows at this scale and for the sizes at hand; a model from nothing has one size."""
        sizes = {size for _, size in self.bases}
        return [row for row in table.rows if row.scale in (None, self.scale) and row.size in sizes]

    # -- what it needs ----------------------------------------------------------------------------------------------

    def cell(self, row: Row, world: str, level: str, seed: int = 0) -> Cell:
        """The cell of a row on a world, evaluated at a level, under the `seed`-th seed from the base's on.

        It is the base's run where that is evaluated at the level, else a run that is trained and evaluated there alone.
        """
        assert row.arm is not None, "what was published only has no cell"
        base = self.base(world, row.size)
        place = "" if level in base.evaluation.levels else level
        if (key := (world, row.size, row.arm, place)) not in self._made:
            recipe = self._changed(base, row.arm, world, place)
            anywhere = replace(recipe, seed=0)
            start = f"{recipe.name}.{_digest(_start(anywhere))}"
            asked = (row.arm.evaluation,) if row.arm.evaluation else ()
            learns = row.arm.preferences
            known = _digest((anywhere, learns) if learns else anywhere)
            self._made[key] = Cell(f"{recipe.name}.{known}", recipe, start, asked, learns)
        cell = self._made[key]
        return replace(cell, recipe=replace(cell.recipe, seed=cell.recipe.seed + seed))

    def needed(self, table: Table, seed: int = 0) -> list[Cell]:
        """The cells behind all numbers of a table, each once with all its evaluations."""
        return _merged(
            self.cell(row, column.world, level, seed)
            for row in self.rows(table)
            if row.arm is not None
            for column in self.columns(table)
            for level in ([column.level, column.key] if column.measure == "drop" else [column.level])
        )

    def groups(self, tables: Sequence[Table], seeds: int) -> list[list[Cell]]:
        """The cells of several tables, each once, in groups that begin with one cold start, seed by seed."""
        found: list[list[Cell]] = []
        for seed in range(seeds):
            starts: dict[str, list[Cell]] = {}
            for cell in _merged(cell for table in tables for cell in self.needed(table, seed)):
                starts.setdefault(cell.start, []).append(cell)
            found += starts.values()
        return found

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
    """Each cell once, in the order in which they come, with the evaluations of all its occurrences."""
    found: dict[str, Cell] = {}
    for cell in cells:
        before = found.get(cell.name, cell).evaluations
        found[cell.name] = replace(cell, evaluations=tuple(dict.fromkeys((*before, *cell.evaluations))))
    return list(found.values())


def _start(recipe: Recipe) -> list[Any]:
    """What the name of a cold start is a hash of: `shared`, in the form that version 0.1.0 gave it.

    That form is a list of values without names, in this order, and is frozen: cold starts and results on disk are found
    by its hash. `shared` says what must be equal today, and grows with the recipe; what it holds besides is added here
    under its name, where it is not at its default, so that it gets a cold start of its own and changes no name otherwise.
    """
    place = (recipe.env, recipe.level, recipe.prompt, recipe.tree.horizon, recipe.sampling.max_tokens)
    settings = replace(recipe.evaluation, levels=(), every=0)
    frozen = [*place, recipe.model, recipe.weights, recipe.seed, recipe.cold_start, settings, recipe.threads]
    usual = shared(type(recipe)(recipe.name, recipe.env))
    later = [
        [name, value]
        for name, value in shared(recipe).items()
        if not {name, name.partition(".")[0]} & STARTS and value != usual.get(name, MISSING)
    ]
    return frozen + later


def _digest(value: Any) -> str:
    """Eight hexadecimal digits of settings."""
    return hashlib.sha256(json.dumps(_said(value), sort_keys=True).encode()).hexdigest()[:8]


def _said(value: Any) -> Any:
    """Settings as JSON values, without those at their defaults, under the names that digests use."""
    if isinstance(value, type):
        return hashed_name(value)
    if is_dataclass(value) and not isinstance(value, type):
        given = {f.name: getattr(value, f.name) for f in fields(value) if f.init and getattr(value, f.name) != _default(f)}
        given = hashed_settings(given) if isinstance(value, Recipe) else given
        return {"type": hashed_name(type(value))} | {name: _said(inner) for name, inner in given.items()}
    if isinstance(value, list | tuple):
        return [_said(item) for item in cast("list[Any]", value)]
    return value


def _default(setting: Field[Any]) -> Any:
    return setting.default if setting.default_factory is MISSING else setting.default_factory()
