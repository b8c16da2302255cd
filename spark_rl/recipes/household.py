"""The household world: the laptop's recipe, from scratch to a trained agent."""

from __future__ import annotations

from dataclasses import replace

from spark_rl.advantage.group import GroupMean
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.config.recipe import ColdStart, Evaluation, Keep, Optimizer, Recipe
from spark_rl.environments.household import Household
from spark_rl.models.scratch import ScratchModel
from spark_rl.objective.loss import Loss
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.recipes.smollm import smollm
from spark_rl.types import Sampling, TreeShape

__all__ = ["household", "household_smollm", "household_tiny", "quickstart", "quickstart_smollm"]

_HOUSES = Household(kinds=("place", "clean", "heat", "light"), receptacles=(9, 13), objects=12, train_tasks=5000)


def household() -> Recipe:
    """SPARK on the household world with a model from scratch.

    The training types are those of L2's training split, so that one model can be evaluated on all three levels. Houses
    are small, and the prompt repeats the task at every turn, because a model of 0.4 M parameters finds and copies names
    over short distances only. Evaluation samples at the temperature of the rollouts, so that it measures the trained policy.
    """
    return Recipe(
        name="household",
        env=_HOUSES,
        model=ScratchModel(hidden=128, layers=2, heads=4, kv_heads=4, intermediate=256),
        level="L2",
        iterations=30,
        tasks_per_iteration=16,
        tree=TreeShape(budget=8, roots=4, horizon=20),
        branching=ExploreTag(width=2),
        prompt=Prompt(Transcript(repeat_task=True), instructions="none", list_actions=False),
        sampling=Sampling(temperature=1.0, max_tokens=40),
        advantage=GroupMean(by_length=True),  # failures are twice as long as successes
        loss=Loss(kl=0.01, entropy=0.0),
        optimizer=Optimizer(learning_rate=1.5e-4, minibatches=2),
        cold_start=ColdStart(
            demonstrations=4000,
            slips=0.2,
            epochs=1,
            batch=4,
            learning_rate=3e-3,
            prompt_weight=0.3,
            optimizer="muon",
        ),
        evaluation=Evaluation(temperature=1.0, every=6, dev_tasks=60),
        keep=Keep(every=6),
    )


def quickstart() -> Recipe:
    """The household recipe, short enough for five minutes on two cores."""
    return replace(household(), name="quickstart", iterations=12, keep=Keep(forests=0, every=6))


def household_tiny() -> Recipe:
    """The household recipe at the size of a cell of the paper's tables: two to three minutes of one core.

    L2 asks for combinations of object and target that no training task has. (A model from scratch never solves
    unseen task types, as in `household`, so that L2 could compare nothing.)
    """
    base = household()
    return replace(
        base,
        name="household-tiny",
        env=replace(_HOUSES, unseen_goals="pairs"),
        iterations=12,
        evaluation=replace(base.evaluation, every=6),
    )


def household_smollm() -> Recipe:
    """SmolLM2-135M in the household world (`smollm`): the tasks of `household`, evaluated on 40 of each level."""
    recipe = smollm("household-smollm", replace(_HOUSES, test_tasks=40), horizon=20, limit=1536)
    return replace(recipe, level="L2", evaluation=replace(recipe.evaluation, levels=("L0", "L1", "L2")))


def quickstart_smollm() -> Recipe:
    """`household_smollm`, short enough for twenty minutes on two cores: 200 demonstrations, 2 iterations, 16 test tasks."""
    recipe = household_smollm()
    return replace(
        recipe,
        name="quickstart-smollm",
        env=replace(_HOUSES, test_tasks=16),
        iterations=2,
        tasks_per_iteration=4,
        cold_start=replace(recipe.cold_start, demonstrations=200),
        evaluation=replace(recipe.evaluation, levels=("L0", "L1")),
        keep=replace(recipe.keep, every=2),
    )
