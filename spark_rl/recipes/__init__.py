"""Recipes: functions that return a `Recipe`, and no logic. A name on the command line is a key of `RECIPES`."""

from __future__ import annotations

from typing import cast

from spark_rl.common.loading import load_object
from spark_rl.config.recipe import Recipe
from spark_rl.errors import unknown_name

__all__ = ["RECIPES", "load_recipe"]

RECIPES: dict[str, str] = {
    "quickstart": "spark_rl.recipes.household:quickstart",
    "quickstart-smollm": "spark_rl.recipes.household:quickstart_smollm",
    "household": "spark_rl.recipes.household:household",
    "household-smollm": "spark_rl.recipes.household:household_smollm",
    "household-tiny": "spark_rl.recipes.household:household_tiny",
    "alfworld-tiny": "spark_rl.recipes.alfworld:alfworld_tiny",
    "alfworld-smollm": "spark_rl.recipes.alfworld:alfworld_smollm",
    "alfworld-qwen-1-5b": "spark_rl.recipes.alfworld:alfworld_qwen_1_5b",
    "alfworld-qwen-7b": "spark_rl.recipes.alfworld:alfworld_qwen_7b",
    "scienceworld-tiny": "spark_rl.recipes.scienceworld:scienceworld_tiny",
    "scienceworld-smollm": "spark_rl.recipes.scienceworld:scienceworld_smollm",
    "scienceworld-qwen-1-5b": "spark_rl.recipes.scienceworld:scienceworld_qwen_1_5b",
    "scienceworld-qwen-7b": "spark_rl.recipes.scienceworld:scienceworld_qwen_7b",
    "sokoban-tiny": "spark_rl.recipes.sokoban:sokoban_tiny",
    "webshop-tiny": "spark_rl.recipes.webshop:webshop_tiny",
    "webshop-smollm": "spark_rl.recipes.webshop:webshop_smollm",
    "webshop-qwen-1-5b": "spark_rl.recipes.webshop:webshop_qwen_1_5b",
    "webshop-qwen-7b": "spark_rl.recipes.webshop:webshop_qwen_7b",
}
"""Name -> `module:function`."""


def load_recipe(name: str) -> Recipe:
    """The recipe of a known name, or of `package.module:function`; a world's name stands for its `-tiny` recipe.

    Raises:
        UsageError: no such name, module or function.
    """
    known = {key.replace("-", "_"): path for key, path in RECIPES.items()}
    key = name.replace("-", "_")
    path = name if ":" in name else known.get(key) or known.get(f"{key}_tiny")
    if path is None:
        raise unknown_name("recipe", name, RECIPES)
    return cast(Recipe, load_object(path, "recipe", kind="function")())
