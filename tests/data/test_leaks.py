"""What is tested is not learnt: test tasks and held-out types are refused wherever something is learnt or evaluated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
from shown import WORLD, won

from spark_rl.config.recipe import Evaluation, Recipe
from spark_rl.data.format import Demonstration, save
from spark_rl.data.leaks import Guard, refuse_held_out, refuse_leaks
from spark_rl.environments.household import Household
from spark_rl.errors import UsageError
from spark_rl.learning.trainer import train
from spark_rl.prompting.prompt import Prompt
from spark_rl.runs.run import Run


def task(level: str, split: str, kind: str):
    return next(task for task in WORLD.tasks(level, split) if task.kind == kind)


def test_objections_name_the_reason():
    guard = Guard(WORLD, "L2")
    assert guard.objection(task("L2", "train", "heat")) == ""
    assert guard.objection(task("L0", "train", "cool")) == 'is of the type "cool", which level L2 holds out'
    assert guard.objection(task("L0", "train", "heat")) == "is no training task of household on level L2"
    assert guard.objection(task("L2", "dev", "cool")) == 'is of the type "cool", which level L2 holds out'
    for level in ("L0", "L1", "L2"):
        for tested in WORLD.tasks(level, "test"):
            assert guard.objection(tested) == f"is a test task of level {level}"
    assert guard.objection(replace(task("L2", "train", "heat"), environment="mars")) == "is a task of mars, not of household"


def test_demonstrations_of_other_tasks_are_refused():
    refuse_leaks(won(), WORLD, "L2", "a file")
    shown = won()[0]
    leaking = Demonstration(replace(shown.tree, task=task("L1", "test", "place")))
    with pytest.raises(
        UsageError, match=r"a file demonstrates household task L1/test/\d+, which is a test task of level L1"
    ):
        refuse_leaks([*won(), leaking], WORLD, "L2", "a file")


@pytest.mark.parametrize("level", ["L0", "L1"])
def test_a_run_on_the_held_out_types_is_not_evaluated_on_l2(tmp_path, level):
    recipe = Recipe(name="r", env=WORLD, level=level, evaluation=Evaluation(levels=("L2",)))
    run = Run.create(tmp_path / "run", recipe)
    refuse_held_out(run, ["L0", "L1"], WORLD)
    with pytest.raises(UsageError, match=r"level L2 of household holds out cool, two, but .*run is trained on that"):
        refuse_held_out(run, ["L0", "L2"], WORLD)
    with pytest.raises(UsageError, match="holds out cool, two"):  # before any work
        train(run, tiny.Log())
    narrow = Household(kinds=("place", "heat"), train_tasks=10)
    refuse_held_out(Run.create(tmp_path / "narrow", replace(recipe, env=narrow)), ["L2"], narrow)


def test_demonstrations_and_the_run_before_count_as_training(tmp_path):
    run = Run.create(tmp_path / "run", Recipe(name="r", env=WORLD, level="L2"))
    refuse_held_out(run, ["L2"], WORLD)
    shown = won()[0]
    save([Demonstration(replace(shown.tree, task=task("L0", "train", "two")))], run.demonstrations, Prompt())
    with pytest.raises(UsageError, match="holds out two, but"):
        refuse_held_out(run, ["L2"], WORLD)
    after = Run.create(tmp_path / "after", Recipe(name="r", env=WORLD, level="L2", model=str(run.directory)))
    with pytest.raises(UsageError, match=r"holds out two, but .*after is trained on that"):
        refuse_held_out(after, ["L2"], WORLD)
