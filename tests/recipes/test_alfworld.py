"""The paper's settings (arXiv 2601.20209), number by number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.prompting.window import Window
from spark_rl.recipes import load_recipe


@pytest.mark.parametrize(("name", "size"), [("alfworld-qwen-1-5b", "1.5B"), ("alfworld-qwen-7b", "7B")])
def test_the_qwen_recipes_have_the_papers_numbers(name, size):
    recipe = load_recipe(name)
    assert recipe.model == f"Qwen/Qwen2.5-{size}-Instruct"
    assert (recipe.iterations, recipe.tasks_per_iteration) == (120, 16)
    assert (recipe.tree.budget, recipe.tree.roots, recipe.tree.horizon) == (8, 4, 30)
    assert recipe.branching == ExploreTag(width=2, at="after")
    assert recipe.prompt.context == Window(history=5)
    assert (recipe.prompt.limit, recipe.sampling.max_tokens, recipe.sampling.temperature) == (2048, 512, 0.4)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay, recipe.optimizer.max_grad_norm) == (
        1e-6,
        0.01,
        1.0,
    )
    assert (recipe.loss.kl, recipe.loss.clip_low, recipe.loss.clip_high, recipe.loss.dual_clip) == (0.01, 0.2, 0.2, 3.0)
    assert (recipe.rewards.scale, recipe.rewards.inadmissible) == (10.0, 0.1)
    assert (recipe.cold_start.demonstrations, recipe.cold_start.epochs, recipe.cold_start.learning_rate) == (300, 3, 1e-5)


def test_sizes_differ_in_nothing_else():
    small, large = load_recipe("alfworld-qwen-1-5b"), load_recipe("alfworld-qwen-7b")
    assert replace(small, name=large.name, model=large.model) == large
