"""`spark-rl paper`: reproduce the paper's tables and figures, at its scale or on a CPU, beside the published numbers."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast, get_args

from spark_rl.commands.base import Call
from spark_rl.common.files import write_bytes, write_json
from spark_rl.config.codec import by_option, encode
from spark_rl.config.options import INLINE, take
from spark_rl.config.recipe import Recipe
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.experiments.compare.cells import prepared
from spark_rl.experiments.compare.results import Results, Study
from spark_rl.experiments.compare.side_by_side import work
from spark_rl.experiments.paper.benchmarks import BENCHMARKS, Scale, Size, base_recipe
from spark_rl.experiments.paper.costs import Cost, cost, memory_bytes, total
from spark_rl.experiments.paper.grid import Grid
from spark_rl.experiments.paper.outcome import Outcome, as_json, markdown
from spark_rl.experiments.paper.published import TABLES
from spark_rl.experiments.paper.table import Table

__all__ = ["paper"]


@dataclass(frozen=True)
class _Paper:
    """Run the missing cells of the tables, then print our numbers beside the paper's.

    `--scale paper` (Qwen2.5 on GPUs, the default) or `tiny` (a model from scratch on a CPU), `--env NAME` for one benchmark,
    `--size 1.5B` or `7B` for one model, `--dry-run` to see every cell and its cost. Recipe options apply to all base
    recipes, before the changes of a row; `seed` is the first seed.
    """

    out: Path
    """Directory of results (cells/), runs, and the tables as Markdown and JSON."""
    recipe: Recipe = field(metadata=INLINE)
    seeds: int = 5
    """Number of seeds, from `seed` on."""
    jobs: int = 2
    """Number of parallel processes, each with one thread."""
    results: tuple[str, ...] = ()
    """Files of results (results/NAME.jsonl): a cell that one of them holds with the same settings is not run again."""

    def __post_init__(self) -> None:
        at_least("", self, seeds=1, jobs=1)


def paper(call: Call) -> int:
    """List the tables, or run some of them. Exit code 1 when a cell failed; the results of the others are printed."""
    words = [word for word in call.argv if word != "--dry-run"]
    dry = len(words) < len(call.argv)
    scale, words = _one_of(words, "--scale", get_args(Scale), "paper")
    size, words = _one_of(words, "--size", get_args(Size), "")
    world, words = take(words, "--env")
    call = replace(call, argv=words)
    if not call.argv or (call.argv[0].startswith("-") and call.argv[0] not in ("-h", "--help")):
        return _list(call, cast(Scale, scale), size, world)
    names, call = call.positionals(f"tables (all, or some of {', '.join(TABLES)})")
    tables = _tables(names)
    options, grid = _grid(call, tables, cast(Scale, scale), size, world)
    for table in tables:
        if not grid.columns(table):
            raise UsageError(
                f"{table.name} has no column of {' or '.join(grid.worlds)}: leave --env out, or name another table"
            )
    if dry:
        return _dry_run(tables, grid, options.seeds)
    chosen = [
        word
        for option, value in (("--scale", scale), ("--size", size), ("--env", world))
        if value
        for word in (option, value)
    ]
    command = shlex.join(["spark-rl", "paper", *names, *chosen, *call.argv])
    return _run(tables, grid, options, call, command)


def _one_of(words: list[str], option: str, known: Sequence[str], default: str) -> tuple[str, list[str]]:
    value, words = take(words, option)
    if value is not None and value not in known:
        raise UsageError(f'{option} is "{value}": it must be {" or ".join(known)}')
    return value or default, words


def _tables(names: Sequence[str]) -> list[Table]:
    if "all" in names:
        return list(TABLES.values())
    for name in names:
        if name not in TABLES:
            raise unknown_name("table", name, TABLES)
    return [TABLES[name] for name in dict.fromkeys(names)]


def _grid(call: Call, tables: Sequence[Table], scale: Scale, size: str, world: str | None) -> tuple[_Paper, Grid]:
    """The options, and the grid over the base recipes of the tables, with the options applied."""
    needed = {column.world for table in tables for column in table.columns}
    worlds = [world] if world else ["household"] if scale == "tiny" else [name for name in BENCHMARKS if name in needed]
    available = {row.size for table in tables for row in table.rows if row.arm is not None}
    sizes = [one for one in get_args(Size) if one in available and (one == "1.5B" if scale == "tiny" else size in ("", one))]
    if not sizes:
        raise UsageError(f"--size is {size}: {' and '.join(table.name for table in tables)} has no row of it at this scale")
    parsed = {
        (name, one): call.options(_Paper(Path("runs") / f"paper-{scale}", prepared(base_recipe(name, one, scale))))
        for name in worlds
        for one in sizes
    }
    first = next(iter(parsed.values()))
    return first, Grid(scale, {place: options.recipe for place, options in parsed.items()})


def _list(call: Call, scale: Scale, size: str, world: str | None) -> int:
    """Print every table with its extra cost beyond the tables above it, which share cells with it."""
    tables = list(TABLES.values())
    _, grid = _grid(call, tables, scale, size, world)
    print(f"One seed of every cell at the {scale} scale; what a table shares with one above it is counted there.\n")
    cells, whole = 0, Cost(0, 0)
    for number, table in enumerate(tables, start=1):
        so_far = list(itertools.chain(*grid.groups(tables[:number], 1)))
        spent = total(cost(cell, scale) for cell in so_far)
        print(f"{table.name:11} {table.title}")
        print(f"{'':11} {len(grid.needed(table))} cells, {len(so_far) - cells} of them new; {spent - whole}")
        cells, whole = len(so_far), spent
    print(f"\n{cells} cells in all: {whole}. `spark-rl paper TABLE --dry-run` shows those of a table.")
    return 0


def _dry_run(tables: Sequence[Table], grid: Grid, seeds: int) -> int:
    """Print each cell: the tables that need it, its changes to the base recipe, and its cost. Nothing is run."""
    users: dict[str, list[str]] = {}
    for table in tables:
        for cell in grid.needed(table):
            users.setdefault(cell.name, []).append(table.name)
    cells = list(itertools.chain(*grid.groups(tables, 1)))
    for cell in cells:
        recipe = cell.recipe
        base = next(other for other in grid.bases.values() if other.name == recipe.name)
        memory = memory_bytes(recipe)
        room = "memory not known" if memory is None else f"{memory / 1e9:.1f} GB"
        print(f"{cell.arm}  {', '.join(users[cell.name])}\n  {cost(cell, grid.scale)}, {room}")
        same = dict(by_option(encode(base)))
        for name, value in by_option(encode(recipe)):
            if name not in same or same[name] != value:
                print(f"  {name:34} {value}")
        if cell.preferences:
            print(f"  spark-rl eto {shlex.join(cell.preferences.words())}")
        for options in cell.evaluations:
            print(f"  evaluated besides with {options}")
    whole = total(cost(cell, grid.scale) for cell in cells)
    print(f"\n{len(cells)} cells a seed, {seeds} seeds: {total([whole] * seeds)}")
    return 0


def _run(tables: Sequence[Table], grid: Grid, options: _Paper, call: Call, command: str) -> int:
    """Run the missing cells, then write and print the tables."""
    results = Results(options.out, tuple(Study.read(Path(path)) for path in options.results))
    groups = grid.groups(tables, options.seeds)
    cells = list(itertools.chain(*groups))
    results.check(cells)
    with call.watching() as watcher:
        failures = work(results, groups, options.jobs, watcher)
    done = {cell.name: result for cell in cells if (result := results.result(cell)) is not None}
    for table in tables:
        outcome = Outcome.of(table, grid, done, options.seeds)
        text = markdown(outcome)
        write_json(options.out / f"{table.name}.json", as_json(outcome))
        write_bytes(options.out / f"{table.name}.md", f"# {table.name}\n\n```sh\n{command}\n```\n\n{text}\n".encode())
        print(f"{text}\n")
    for failure in failures:
        print(f"failed: {failure}")
    return 1 if failures else 0
