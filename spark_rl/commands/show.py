"""`spark-rl show`: show a run, one of its forests and one tree in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spark_rl.commands.base import Call
from spark_rl.commands.base import show as display
from spark_rl.errors import UsageError
from spark_rl.runs.forests import iterations, load_forest

__all__ = ["show"]


@dataclass(frozen=True)
class _Show:
    """Show a run: success, curves, costs, a forest and one tree of it."""

    iteration: int | None = None
    """Iteration of the forest; by default that of the last saved forest."""
    task: int | None = None
    """Which tree of the forest, from 0; by default an informative one."""


def show(call: Call) -> int:
    """Read a run directory or a forest file, and draw it."""
    from spark_rl.report.reading import is_run, read_run
    from spark_rl.report.terminal import choose_tree, draw_tree, forest_summary, leaf_advantages, summary

    name, call = call.positional("a run directory")
    options, place = call.options(_Show()), Path(name)
    if not place.exists():
        raise UsageError(f"{place} holds no run; name the --out of a run, or a forest file")
    reading = read_run(place, foreign=call.trusts) if is_run(place) else None
    if reading is not None:
        display(summary(reading), "")
        if options == _Show() and not iterations(place):
            display("No forests are kept yet.")
            return 0
    forest = load_forest(place, options.iteration)
    index = choose_tree(forest) if options.task is None else options.task
    if not 0 <= index < len(forest):
        raise UsageError(f"--task is {index}: the forest of iteration {forest.iteration} has trees 0 to {len(forest) - 1}")
    tree = forest.trees[index]
    advantages = leaf_advantages(tree, reading.recipe) if reading and reading.recipe else None
    display(forest_summary(forest), "", f"Tree {index} of {len(forest)}", draw_tree(tree, advantages))
    return 0
