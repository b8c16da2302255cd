"""The executor in this process: one forest for one request, whatever was grown before."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import pytest
import torch
from tiny import RECIPE, WORLD

from spark_rl.engines.local.engine import LocalEngine
from spark_rl.evaluation.play import evaluate
from spark_rl.models.new import new_model
from spark_rl.models.scratch import ScratchModel
from spark_rl.models.tokenizer import learn_tokenizer
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.types import Forest

TASKS = WORLD.tasks("L0", "train")[:2]
GROWTH = RECIPE.growth


@cache
def tokenizer() -> Any:
    return learn_tokenizer(["<think>so</think><action>go to fridge 1</action>", "You see a fridge 1."] * 9, vocabulary=300)


def executor(cache_gb: float = 0.01) -> InProcess:
    """Around a model that knows nothing."""
    model = new_model(tokenizer(), ScratchModel(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64), seed=0)
    return InProcess(WORLD, LocalEngine(model, tokenizer(), cache_bytes=int(cache_gb * 2**30)))


def engine(executor: InProcess) -> LocalEngine:
    assert isinstance(executor.engine, LocalEngine)
    return executor.engine


def grow(executor: InProcess, iteration: int = 1) -> Forest:
    return asyncio.run(executor.grow(TASKS, GROWTH, seed=0, iteration=iteration))


def test_a_forest_does_not_depend_on_what_was_grown_before():
    """To the bit, although the addresses under which keys and values are kept are those of every other forest."""
    expected = grow(executor())
    used = executor()
    assert grow(used, 2) != expected
    asyncio.run(evaluate(used, WORLD.tasks("L0", "test"), GROWTH, temperature=0.0, seed=5))
    assert grow(used) == expected
    assert expected.spent.reused > 0


def test_no_cache_outlives_a_forest():
    used = executor()
    grow(used)
    assert not engine(used).cache.entries

    def stop(*_: object) -> None:
        assert engine(used).cache.entries
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(used.grow(TASKS, GROWTH, seed=0, iteration=1, watch=stop))
    assert not engine(used).cache.entries


def test_it_grows_with_the_model_as_it_is_now():
    used = executor()
    before = grow(used)
    with torch.no_grad():
        for parameter in engine(used).model.parameters():
            parameter.mul_(1.5)
    asyncio.run(used.load_weights(1, engine(used).model.state_dict()))
    after = grow(used)
    assert before != after
    assert grow(used) == after
    assert (before.version, after.version) == (0, 1)
    assert {node.version for tree in before for node in tree.nodes} == {0}
    assert {node.version for tree in after for node in tree.nodes} == {1}


def test_the_watch_sees_every_round():
    rounds: list[tuple[int, int]] = []
    forest = asyncio.run(
        executor().grow(TASKS, GROWTH, seed=0, iteration=1, watch=lambda grown, open: rounds.append((len(grown), open)))
    )
    assert len(rounds) == max(node.depth for tree in forest for node in tree.nodes)
    assert rounds[-1] == (len(TASKS), 0)
