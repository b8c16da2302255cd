"""Sokoban: the laptop's recipe, from scratch to an agent that pushes a box."""

from __future__ import annotations

from dataclasses import replace

from spark_rl.config.recipe import Recipe
from spark_rl.environments.sokoban import Sokoban
from spark_rl.prompting.transcript import Transcript
from spark_rl.recipes.household import household

__all__ = ["sokoban_tiny"]


def sokoban_tiny() -> Recipe:
    """A model from scratch on small rooms with one box, L2 with two; for a CPU.

    Settings are those of `household`. The board is a list of named cells: a name is two tokens, its noun and its number, so
    that a cell has the same tokens wherever it is read or written. In a grid, so small a model would have to count symbols
    to find a cell.
    """
    base = household()
    return replace(
        base,
        name="sokoban-tiny",
        env=Sokoban(size=6, boxes=1, moves=(4, 12), view="list", train_tasks=6000),
        level="L0",
        tree=replace(base.tree, horizon=16),
        prompt=replace(base.prompt, context=Transcript()),
        iterations=15,
        # Dense tags, because the first push decides most. From 1,600 demonstrations some seeds learn next to nothing.
        cold_start=replace(base.cold_start, demonstrations=2400, tags="dense", slips=0.1, epochs=2),
    )
