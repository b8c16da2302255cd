"""A run small enough that a test can make several: a model of 0.1 M parameters in a household of eight places."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from spark_rl.config.recipe import ColdStart, Evaluation, Keep, Optimizer, Recipe
from spark_rl.engines.local.settings import Local
from spark_rl.environments.household import Household
from spark_rl.learning.trainer import train
from spark_rl.models.scratch import ScratchModel
from spark_rl.objective.loss import Loss
from spark_rl.objective.rewards import Rewards
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.runs.run import Run
from spark_rl.types import Sampling, TreeShape

WORLD = Household(
    kinds=("place",),
    held_out=(),
    houses=1,
    unseen_houses=1,
    receptacles=(8, 9),
    objects=6,
    train_tasks=60,
    dev_tasks=3,
    test_tasks=5,
)
RECIPE = Recipe(
    name="tiny",
    env=WORLD,
    model=ScratchModel(hidden=64, layers=2, heads=2, kv_heads=1, intermediate=192),
    iterations=4,
    tasks_per_iteration=2,
    tree=TreeShape(budget=4, roots=2, horizon=8),
    prompt=Prompt(Transcript(), instructions="none", list_actions=False),
    sampling=Sampling(max_tokens=32),
    rewards=Rewards(inadmissible=0.2, inside=True),  # so that groups differ although hardly anybody wins
    loss=Loss(entropy=0.0),
    optimizer=Optimizer(learning_rate=3e-4, minibatches=2),
    cold_start=ColdStart(
        demonstrations=60, tags="dense", epochs=10, batch=4, learning_rate=3e-3, prompt_weight=0.3, optimizer="muon"
    ),
    evaluation=Evaluation(levels=("L0", "L1"), temperature=0.0, every=2, batch=3),
    keep=Keep(forests=0, checkpoints=9, every=2),
    threads=1,
    engine=Local(cache_gb=0.1),
)


class Log:
    """A watcher that remembers what it was told, and may interrupt the run after an iteration."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.phases: list[str] = []
        self.advances: dict[str, list[int]] = {}
        self.notes: list[str] = []
        self.expected: dict[str, float] = {}

    def phase(self, name: str, total: int | None = None, done: int = 0) -> None:
        self.phases.append(name)
        self.advances[name] = []

    def advance(self, done: int, *, total: int | None = None, **figures: float) -> None:
        self.advances[self.phases[-1]].append(done)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def expect(self, seconds: Mapping[str, float]) -> None:
        self.expected = dict(seconds)

    def iteration(self, row: Mapping[str, float]) -> None:
        if row["iteration"] == self.stop_after:
            raise KeyboardInterrupt


@cache
def finished() -> tuple[Run, Log]:
    """A run of `RECIPE` from scratch to the end, made once; to be read only."""
    directory = Path(tempfile.mkdtemp(prefix="spark-rl-tiny-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    run, log = Run.create(directory / "run", RECIPE), Log()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL sets options that transformers will drop
        train(run, log)
    return run, log


def start(directory: Path, **changes: Any) -> Run:
    """A run with some of the recipe's fields changed, which has the finished run's cold start; nothing is evaluated."""
    settings = {"evaluation": replace(RECIPE.evaluation, levels=(), every=0)} | changes
    run = Run.create(directory, replace(RECIPE, **settings))
    shutil.copytree(finished()[0].checkpoints / "cold-start", run.checkpoints / "cold-start")
    return run


def untimed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Rows of metrics without the clock."""
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows]


def recipe() -> Recipe:
    """`RECIPE` as the command line takes it: `tiny:recipe`."""
    return RECIPE
