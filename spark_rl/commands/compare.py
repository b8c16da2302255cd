"""`spark-rl compare`: algorithms on one recipe, seed by seed, side by side; then tables and plots.

Cells are worked through seed by seed, so that whatever is there when it is stopped can be compared.
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

    Fields of the recipe are set for all arms, after the arm's own; `seed` is the first of the seeds. The arms of a seed
    share a cold start; one that changes prompt or cold start (rlvmr) has its own, and the report says so. Called again with
    the same --out it does what is missing.
    """

    out: Path
    """Directory of results (cells/), runs, tables (report.md) and plots."""
    recipe: Recipe = field(metadata=INLINE)
    seeds: int = 10
    """How many, from `seed` on."""
    jobs: int = 2
    """Processes side by side, each with one thread."""
    results: tuple[str, ...] = ()
    """Files of results (results/NAME.jsonl): a cell that one of them holds with the same settings is not run again."""


def compare(call: Call) -> int:
    """Run what is missing, then print the tables. Exit code 1 when a cell failed; the others are compared all the same."""
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
        found = [result for cell in cells if (result := results.result(cell)) is not None]
        comparison = Comparison.of(arms, found)
        command = f"spark-rl compare {name} --arms {','.join(arms)} {shlex.join(call.argv)}"
        tables = _report(comparison, options.out, command, watcher)
    print(tables)
    for failure in failures:
        print(f"failed: {failure}")
    return 1 if failures else 0


def _options(call: Call, recipe: Recipe, arm: str) -> _Compare:
    """What the command line asks of an arm: its algorithm first, then the fields that are set."""
    default = _Compare(Path("runs") / f"{recipe.name}-compare", with_algorithm(prepared(recipe), arm))
    return parse(default, call.argv, call.prog)


def _groups(arms: Sequence[str], recipes: Sequence[Recipe], seeds: int) -> list[list[Cell]]:
    """The cells of each seed and cold start.

    An arm that differs from the first in prompt, cold start or which weights are trained (LoRA or all) has a cold start of
    its own, named by the first arm that begins so; one that differs in anything else is left among the others, where
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
    """Write report.md and the plots, as far as they can be drawn; returns the tables."""
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
