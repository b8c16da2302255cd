"""The paper's settings (arXiv 2601.20209) on ScienceWorld, and the small recipe that a CPU trains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.environments.scienceworld import KINDS, ScienceWorld
from spark_rl.prompting.window import Window
from spark_rl.recipes import load_recipe
from spark_rl.recipes.scienceworld import SHORT


@pytest.mark.parametrize(("name", "size"), [("scienceworld-qwen-1-5b", "1.5B"), ("scienceworld-qwen-7b", "7B")])
def test_the_qwen_recipes_have_the_papers_numbers(name, size):
    recipe = load_recipe(name)
    assert recipe.model == f"Qwen/Qwen2.5-{size}-Instruct"
    assert (recipe.iterations, recipe.tasks_per_iteration) == (120, 16)
    assert (recipe.tree.budget, recipe.tree.roots, recipe.tree.horizon) == (8, 4, 30)
    assert recipe.branching == ExploreTag(width=2, at="after")
    assert recipe.prompt.context == Window(history=5)
    assert recipe.prompt.list_actions
    assert (recipe.sampling.max_tokens, recipe.sampling.temperature) == (512, 0.4)
    assert (recipe.optimizer.learning_rate, recipe.loss.kl, recipe.rewards.scale) == (1e-6, 0.01, 10.0)
    assert (recipe.cold_start.demonstrations, recipe.cold_start.epochs, recipe.cold_start.learning_rate) == (300, 3, 1e-5)
    assert isinstance(recipe.env, ScienceWorld)
    assert (recipe.env.simplifications, recipe.env.ticks) == ("easy", 100)
    assert (recipe.env.success, recipe.env.reward, recipe.env.kinds) == ("score", "success", ())


def test_sizes_differ_in_nothing_else():
    small, large = load_recipe("scienceworld-qwen-1-5b"), load_recipe("scienceworld-qwen-7b")
    assert replace(small, name=large.name, model=large.model) == large


def test_the_small_recipe_says_which_types_it_plays():
    recipe = load_recipe("scienceworld_tiny")
    assert isinstance(recipe.env, ScienceWorld)
    assert recipe.env.kinds == SHORT
    assert set(SHORT) < set(KINDS)
