"""Sokoban: the laptop's recipe, from nothing to an agent that pushes a box."""

from __future__ import annotations

from spark_rl.advantage.group import GroupMean
from spark_rl.environments.sokoban import Sokoban
from spark_rl.fresh import FreshModel
from spark_rl.growth import Sampling, TreeShape
from spark_rl.loss import Loss
from spark_rl.prompting import Prompt, Transcript
from spark_rl.recipe import ColdStart, Evaluation, Keep, Optimizer, Recipe

__all__ = ["sokoban_tiny"]


def sokoban_tiny() -> Recipe:
    """A model from nothing on small rooms with one box, L2 with two; for a CPU.

    The board is a list of named cells: a name is two tokens, its noun and its number, so that a cell is one token wherever
    it is read or written. In the grid it is the place of a symbol, which so small a model would have to count.
    """
    return Recipe(
        name="sokoban-tiny",
        env=Sokoban(size=6, boxes=1, moves=(4, 12), view="list", train_tasks=6000),
        model=FreshModel(hidden=128, layers=2, heads=4, kv_heads=4, intermediate=256),
        level="L0",
        iterations=30,
        tasks_per_iteration=16,
        tree=TreeShape(budget=8, roots=4, horizon=16),
        prompt=Prompt(Transcript(), instructions="none", list_actions=False),
        sampling=Sampling(temperature=1.0, max_tokens=40),
        advantage=GroupMean(by_length=True),
        loss=Loss(kl=0.01, entropy=0.0),
        optimizer=Optimizer(learning_rate=1.5e-4, minibatches=2),
        cold_start=ColdStart(
            demonstrations=1600,
            tags="dense",  # the first push decides most
            slips=0.1,
            epochs=2,
            batch=4,
            learning_rate=3e-3,
            prompt_weight=0.3,
            optimizer="muon",
        ),
        evaluation=Evaluation(temperature=1.0, every=6, dev_tasks=60),
        keep=Keep(every=6),
    )
