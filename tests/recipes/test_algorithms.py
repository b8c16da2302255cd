"""Algorithms: what they set, what they leave alone, and that each can be saved, overridden and grown."""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from tiny import RECIPE

from spark_rl.advantage.group import GroupMean
from spark_rl.branching.chains import Chains
from spark_rl.cli import main
from spark_rl.config.codec import decode, encode
from spark_rl.config.options import parse_recipe
from spark_rl.config.recipe import Recipe
from spark_rl.errors import UsageError
from spark_rl.policies.scripted import RandomActions
from spark_rl.recipes.algorithms import ALGORITHMS, with_algorithm
from spark_rl.rollout.grow import grow_forest
from spark_rl.rollout.metrics import summarise
from spark_rl.runs.run import Run

NAMES = pytest.mark.parametrize("name", ALGORITHMS)
NEEDS_ENTROPIES = {"entropy"}


def cooler(recipe: Recipe) -> Recipe:
    """An algorithm of a user's own."""
    return replace(recipe, branching=Chains(), sampling=replace(recipe.sampling, temperature=0.5))


def nothing(recipe: Recipe) -> None:
    """No algorithm at all."""


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "rlvmr"])
def test_world_model_prompt_and_cold_start_are_the_recipes(name):
    changed = with_algorithm(RECIPE, name)
    for part in ("env", "model", "level", "seed", "prompt", "cold_start", "evaluation", "iterations", "tasks_per_iteration"):
        assert getattr(changed, part) == getattr(RECIPE, part)
    assert changed.tree.budget == RECIPE.tree.budget, "the same number of leaves at most"
    assert changed.tree.horizon == RECIPE.tree.horizon
    assert changed.name == f"tiny-{name.replace('_', '-')}"


def test_rlvmr_is_its_credit_with_a_prompt_and_a_cold_start_of_its_own():
    own, tags = with_algorithm(RECIPE, "rlvmr"), with_algorithm(RECIPE, "rlvmr_tags")
    assert (own.prompt, own.advantage, own.tree) == (replace(RECIPE.prompt, modes="rlvmr"), tags.advantage, tags.tree)
    assert own.cold_start == replace(RECIPE.cold_start, tags="dense", slips=0.1), "without slips nothing is to be reflected"
    often = replace(RECIPE, cold_start=replace(RECIPE.cold_start, slips=0.3))
    assert with_algorithm(often, "rlvmr").cold_start.slips == 0.3
    assert (own.env, own.model, own.evaluation) == (RECIPE.env, RECIPE.model, RECIPE.evaluation)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("without_values", {"advantage"}),
        ("without_anchors", {"advantage"}),
        ("without_backup", {"advantage"}),
        ("without_reallocation", {"tree", "branching"}),
    ],
)
def test_an_ablation_takes_one_part_out_of_strategic(part, changes, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    whole, ablated = (with_algorithm(RECIPE, name) for name in ("strategic", f"benchmarks.ablations:{part}"))
    differ = {field.name for field in fields(Recipe) if getattr(whole, field.name) != getattr(ablated, field.name)}
    assert differ == changes | {"name"}


@NAMES
def test_each_can_be_saved_and_its_fields_set(name):
    changed = with_algorithm(RECIPE, name)
    assert decode(json.loads(json.dumps(encode(changed)))) == changed
    assert parse_recipe(changed, ["--iterations", "9"], "train") == replace(changed, iterations=9)


@NAMES
def test_each_grows_within_the_budget_and_credits_every_node(name):
    if name in NEEDS_ENTROPIES:
        pytest.skip("chance does not say how sure it is")
    recipe = with_algorithm(RECIPE, name)
    tasks = recipe.env.tasks("L0", "train")[:4]
    forest = asyncio.run(grow_forest(tasks, recipe.env, RandomActions(), recipe.growth, seed=1))
    leaves = [len(tree.leaves()) for tree in forest]
    assert sum(leaves) <= 4 * recipe.tree.budget
    assert max(leaves) <= (recipe.tree.cap or recipe.tree.budget)
    assert min(leaves) >= recipe.tree.roots
    assert summarise(forest, recipe.tree.budget)["budget_used"] <= 1
    for tree in forest:
        assert len(recipe.rewards.credit(tree, recipe.advantage).weight) == len(tree.nodes)


def test_the_recipes_own_settings_of_group_credit_are_kept():
    recipe = replace(RECIPE, advantage=GroupMean(std=False, by_length=True))
    for name in ("paper", "grpo", "random", "dapo"):
        assert with_algorithm(recipe, name).advantage == recipe.advantage
    assert with_algorithm(recipe, "gigpo").advantage.parts[0] == recipe.advantage  # type: ignore[attr-defined]


def test_chains_have_all_their_leaves_at_the_root_and_trees_half():
    roots = {name: with_algorithm(RECIPE, name).tree.roots for name in ALGORITHMS}
    assert {name for name, count in roots.items() if count == 4} == {"grpo", "gigpo", "rlvmr", "rlvmr_tags", "rloo", "dapo"}
    assert set(roots.values()) == {2, 4}


def test_an_arm_of_ones_own_and_what_is_none():
    module = "test_algorithms_own"
    import sys

    sys.modules[module] = sys.modules[__name__]
    try:
        assert with_algorithm(RECIPE, f"{module}:cooler").sampling.temperature == 0.5
        with pytest.raises(UsageError, match="gave NoneType"):
            with_algorithm(RECIPE, f"{module}:nothing")
        with pytest.raises(UsageError, match="cannot be imported"):
            with_algorithm(RECIPE, f"{module}:absent")
    finally:
        del sys.modules[module]
    with pytest.raises(UsageError, match=r'unknown algorithm "strategy"; did you mean "strategic"\?'):
        with_algorithm(RECIPE, "strategy")
    assert with_algorithm(RECIPE, "strategic-chains") == with_algorithm(RECIPE, "strategic_chains")


def test_one_flag_switches_and_fields_come_after_it(tmp_path, capsys):
    out = tmp_path / "grown"
    flags = ["--branching.one-by-one", "True", "--algorithm", "strategic", "--tree.budget", "6"]
    assert main(["rollout", "quickstart", "--policy", "random", "--tasks", "2", "--out", str(out), *flags]) == 0
    recipe = Run.open(out).recipe
    assert recipe.name == "quickstart-strategic"
    assert recipe.branching.one_by_one  # type: ignore[attr-defined]
    assert (recipe.tree.budget, recipe.tree.roots) == (6, 4), "the algorithm saw the recipe's own budget"
    capsys.readouterr()
    assert main(["train", "quickstart", "--algorithm", "strategc", "--quiet"]) == 2
    assert 'did you mean "strategic"?' in capsys.readouterr().err
