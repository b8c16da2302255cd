"""`spark-rl compare`: train several algorithms on one recipe with several seeds; then write tables and plots.

Cells run seed by seed, so that the results of a stopped comparison can already be compared.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spark_rl.commands.base import Call
from spark_rl.common.files import write_bytes
from spark_rl.config.options import INLINE, parse, take
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Watcher
from spark_rl.errors import MissingExtra, UsageError
from spark_rl.experiments.compare.cells import Cell, prepared, shared
from spark_rl.experiments.compare.results import Results, Study
from spark_rl.experiments.compare.side_by_side import work
from spark_rl.experiments.compare.tables import Comparison, markdown
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.recipes.algorithms import ALGORITHMS, with_algorithm

__all__ = ["compare"]

ARMS = "grpo,paper,random,gigpo,strategic,strategic_chains"


@dataclass(frozen=True)
class _Compare:
    """Train every arm (--arms NAME,NAME,..., the first is the baseline) with every seed and compare them at equal cost.

    Recipe options apply to all arms and override an arm's own settings; `seed` is the first seed. The arms of a seed share
    one cold start. An arm that changes prompt or cold start (rlvmr) has its own cold start, and the report says so. The same
    command with the same --out continues.
    """

    out: Path
    """Directory of results (cells/), runs, tables (report.md) and plots."""
    recipe: Recipe = field(metadata=INLINE)
    seeds: int = 10
    """Number of seeds, from `seed` on."""
    jobs: int = 2
    """Number of parallel processes, each with one thread."""
    results: tuple[str, ...] = ()
    """Files of results (results/NAME.jsonl): a cell that one of them holds with the same settings is not run again."""


def compare(call: Call) -> int:
    """Run the missing cells, then print the tables. Exit code 1 when a cell failed; the others are still compared."""
    names, argv = take(call.argv, "--arms")
    arms = [name.strip() for name in (names or ARMS).split(",") if name.strip()]
    name, call = replace(call, argv=argv).positional(f"a recipe (arms: {', '.join(ALGORITHMS)})", RECIPES)
    if not arms:
        raise UsageError(f"--arms names none; choose from {', '.join(ALGORITHMS)}, or package.module:function")
    chosen = [_options(call, load_recipe(name), arm) for arm in arms]
    options = chosen[0]
    if options.seeds < 1 or options.jobs < 1:
        raise UsageError(f"seeds is {options.seeds} and jobs {options.jobs}: both must be at least 1")
    groups = _groups(arms, [each.recipe for each in chosen], options.seeds)
    cells = list(itertools.chain(*groups))
    results = Results(options.out, tuple(Study.read(Path(path)) for path in options.results))
    results.check(cells)
    with call.watching() as watcher:
        failures = work(results, groups, options.jobs, watcher)
        done = [result for cell in cells if (result := results.result(cell)) is not None]
        comparison = Comparison.of(arms, done)
        command = f"spark-rl compare {name} --arms {','.join(arms)} {shlex.join(call.argv)}"
        tables = _report(comparison, options.out, command, watcher)
    print(tables)
    for failure in failures:
        print(f"failed: {failure}")
    return 1 if failures else 0


def _options(call: Call, recipe: Recipe, arm: str) -> _Compare:
    """The options of one arm: its algorithm, then the options of the command line."""
    default = _Compare(Path("runs") / f"{recipe.name}-compare", with_algorithm(prepared(recipe), arm))
    return parse(default, call.argv, call.prog)


def _groups(arms: Sequence[str], recipes: Sequence[Recipe], seeds: int) -> list[list[Cell]]:
    """The cells, grouped by seed and cold start.

    An arm that differs from the first arm in prompt, cold start or trained weights (LoRA or all) has its own cold start,
    which is named after the first arm that uses it. An arm that differs in any other setting stays in the first group, where
    `Results.check` refuses it.
    """
    first, starts = recipes[0], dict[str, str]()
    for arm, recipe in zip(arms, recipes, strict=True):
        own = shared(recipe) != shared(first)
        free = {"prompt": first.prompt, "cold_start": first.cold_start, "weights": first.weights}
        comparable = shared(replace(recipe, **free)) == shared(first)
        alike = (other for other, begun in zip(arms, recipes, strict=True) if shared(begun) == shared(recipe))
        starts[arm] = next(alike) if own and comparable else ""
    return [
        [
            Cell(arm, replace(recipe, seed=recipe.seed + i), start)
            for arm, recipe in zip(arms, recipes, strict=True)
            if starts[arm] == start
        ]
        for i in range(seeds)
        for start in dict.fromkeys(starts.values())
    ]


def _report(comparison: Comparison, out: Path, command: str, watcher: Watcher) -> str:
    """Write report.md, and the plots if their libraries are installed; returns the tables."""
    tables, pictures = markdown(comparison), list[Path]()
    if comparison.seeds:
        try:
            from spark_rl.experiments.compare.plots import draw

            pictures = draw(comparison, out)
        except MissingExtra as error:
            watcher.note(f"tables only: {error}")
    links = "".join(f"\n![{path.stem}]({path.name})\n" for path in pictures)
    write_bytes(out / "report.md", f"# Comparison\n\n```sh\n{command}\n```\n\n{tables}{links}".encode())
    return tables
