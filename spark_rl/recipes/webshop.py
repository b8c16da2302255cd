"""WebShop: a shop made up on the spot on a laptop, and the original's as in the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from spark_rl.config.recipe import Recipe
from spark_rl.environments.webshop import Webshop
from spark_rl.models.scratch import ScratchModel
from spark_rl.recipes.household import household
from spark_rl.recipes.qwen import qwen
from spark_rl.recipes.smollm import smollm

__all__ = ["webshop_qwen_1_5b", "webshop_qwen_7b", "webshop_smollm", "webshop_tiny"]

_GENERATED = Webshop(size="generated", products=5000, split="disjoint", held_out=60, per_page=4, reward="success")


def webshop_tiny() -> Recipe:
    """A model from scratch in a generated shop, after a cold start; for a CPU.

    Test goals and training goals share no product, so that the agent must read off the page which product to open. There are
    five thousand products, because a model learns the codes of a thousand by heart. Their 250 numbers are tokens; the rest
    of the vocabulary is phrases of a page, which halve its length. Pages hold four results with short titles, and the
    prompt repeats the request at every turn, because a model of half a million parameters copies names over short
    distances only. Other settings are those of `household`.
    """
    base = household()
    return replace(
        base,
        name="webshop-tiny",
        env=_GENERATED,
        model=ScratchModel(vocabulary=860, hidden=128, layers=2, heads=4, kv_heads=4, intermediate=256),
        level="L0",
        iterations=20,
        tree=replace(base.tree, horizon=12),
        cold_start=replace(base.cold_start, demonstrations=6000, epochs=3),
        evaluation=replace(base.evaluation, levels=("L0",)),
    )


def webshop_smollm() -> Recipe:
    """SmolLM2-135M in the generated shop of `webshop-tiny` (`smollm`); `--env.size small` takes the official catalogue."""
    recipe = smollm("webshop-smollm", _GENERATED, horizon=12, limit=3072)
    return replace(recipe, evaluation=replace(recipe.evaluation, levels=("L0",)))


def webshop_qwen_1_5b() -> Recipe:
    """The paper's setting (`qwen`) on the small official catalogue: 1,000 products, made-up goals, 500 of them for testing.

    Only a purchase with score 1 is paid, as in the released code. All levels have the same tasks, so only L0 is evaluated.
    """
    return _qwen("webshop-qwen-1-5b", "1.5B")


def webshop_qwen_7b() -> Recipe:
    """As `webshop_qwen_1_5b`, with Qwen2.5-7B-Instruct."""
    return _qwen("webshop-qwen-7b", "7B")


def _qwen(name: str, size: Literal["1.5B", "7B"]) -> Recipe:
    recipe = qwen(name, Webshop(size="small", reward="success"), size, row=6000)
    return replace(recipe, evaluation=replace(recipe.evaluation, levels=("L0",)))
