"""The small recipe says what it plays, and shows a small model what it can read."""

from __future__ import annotations

import asyncio
from typing import Any

from spark_rl.data.demonstrations import collect, texts
from spark_rl.environments.sokoban import Sokoban
from spark_rl.models.tokenizer import learn_tokenizer
from spark_rl.recipes import load_recipe


def test_each_cell_is_one_token_wherever_it_is_read_or_written():
    recipe = load_recipe("sokoban_tiny")
    assert isinstance(recipe.env, Sokoban)
    assert (recipe.env.boxes, recipe.env.view, recipe.cold_start.tags) == (1, "list", "dense")
    assert recipe.env.moves[1] <= recipe.tree.horizon
    shown = asyncio.run(collect(recipe.env, 60, level=recipe.level, horizon=recipe.tree.horizon, prompt=recipe.prompt))
    tokenizer: Any = learn_tokenizer(texts(shown, recipe.prompt), vocabulary=1024, min_count=1)
    for number in (11, 23, 44):
        for noun in ("player", "box", "target", "wall", "at", "from", "to"):
            pieces = tokenizer.tokenize(f"{noun} {number}")
            assert len(pieces) == 2, (noun, number, pieces)
            assert pieces[1].strip().endswith(str(number))
