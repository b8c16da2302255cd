"""The released settings on WebShop, and the small recipe that a CPU trains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.environments.webshop import Webshop
from spark_rl.prompting.window import Window
from spark_rl.recipes import load_recipe


@pytest.mark.parametrize(("name", "size"), [("webshop-qwen-1-5b", "1.5B"), ("webshop-qwen-7b", "7B")])
def test_the_qwen_recipes_have_the_released_numbers(name, size):
    recipe = load_recipe(name)
    assert recipe.model == f"Qwen/Qwen2.5-{size}-Instruct"
    assert (recipe.iterations, recipe.tasks_per_iteration) == (120, 16)
    assert (recipe.tree.budget, recipe.tree.roots, recipe.tree.horizon) == (8, 4, 30)
    assert recipe.branching == ExploreTag(width=2, at="after")
    assert (recipe.prompt.context, recipe.prompt.list_actions, recipe.prompt.limit) == (Window(history=5), True, 2048)
    assert (recipe.sampling.max_tokens, recipe.sampling.temperature) == (512, 0.4)
    assert (recipe.optimizer.learning_rate, recipe.loss.kl, recipe.rewards.scale) == (1e-6, 0.01, 10.0)
    assert recipe.evaluation.levels == ("L0",)
    assert recipe.env == Webshop(size="small", reward="success")
    assert isinstance(recipe.env, Webshop)
    assert (recipe.env.test_tasks, recipe.env.split, recipe.env.compat) == (500, "canonical", False)


def test_sizes_differ_in_nothing_else():
    small, large = load_recipe("webshop-qwen-1-5b"), load_recipe("webshop-qwen-7b")
    assert replace(small, name=large.name, model=large.model) == large


def test_the_small_recipe_needs_no_data_and_tests_on_products_it_does_not_train_on():
    recipe = load_recipe("webshop_tiny")
    assert isinstance(recipe.env, Webshop)
    assert (recipe.env.size, recipe.env.split) == ("generated", "disjoint")
    shop = recipe.env.shop()
    products = {
        split: {
            shop.goals("synthetic")[int(task.id.partition("/")[2])].product.asin for task in recipe.env.tasks("L0", split)
        }
        for split in ("train", "test")
    }
    assert len(products["test"]) > 50
    assert not products["train"] & products["test"]
