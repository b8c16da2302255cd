"""The household world: the laptop's recipe, from nothing to a trained agent."""

from __future__ import annotations

from dataclasses import replace

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.environments.household import Household
from spark_rl.fresh import FreshModel
from spark_rl.growth import Sampling, TreeShape
from spark_rl.loss import Loss
from spark_rl.prompting import Prompt, Transcript
from spark_rl.recipe import ColdStart, Evaluation, Keep, Optimizer, Recipe

__all__ = ["household", "quickstart"]


def household() -> Recipe:
    """SPARK on the household world with a model from nothing; trained on the task types of L2's training split."""
    return Recipe(
        name="household",
        env=Household(),
        model=FreshModel(),
        level="L2",
        iterations=30,
        tasks_per_iteration=16,
        tree=TreeShape(budget=8, roots=4, horizon=30),
        branching=ExploreTag(width=2),
        prompt=Prompt(Transcript(), instructions="none", list_actions=False, limit=2048),
        sampling=Sampling(temperature=0.7, max_tokens=40),
        loss=Loss(kl=0.01, entropy=0.0),
        optimizer=Optimizer(learning_rate=5e-4, minibatches=2),
        cold_start=ColdStart(
            demonstrations=400,
            epochs=4,
            batch=16,
            learning_rate=3e-3,
            prompt_weight=0.3,
            optimizer="muon",
        ),
        evaluation=Evaluation(temperature=0.4, every=5, dev_tasks=60),
        keep=Keep(every=5),
    )


def quickstart() -> Recipe:
    """The household recipe, small enough for five minutes on two cores."""
    return replace(household(), name="quickstart", iterations=15)
