"""How long a run takes: the arithmetic by hand, and the measurement on a real small model."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import qwen
import tiny
import torch

from spark_rl.cli import main
from spark_rl.config.recipe import Recipe
from spark_rl.learning.forecast import FEW, MANY, Episode, Speed, combine, forecast
from spark_rl.models.weights import Weights

EPISODE = Episode(steps=4.0, seconds=0.5, completion=10.0, reading=20.0, rows=1.0, trained=100.0)
SPEED = Speed(read=0.001, learn=0.01, start=0.02, step=0.5, few=0.1, many=0.1 + 0.01 * (MANY - FEW))


def recipe(**changes: object) -> Recipe:
    given = {
        "iterations": 3,
        "tasks_per_iteration": 4,
        "tree": replace(tiny.RECIPE.tree, budget=2, roots=2, horizon=12),
        "loss": replace(tiny.RECIPE.loss, kl=0.0),
        "cold_start": replace(tiny.RECIPE.cold_start, demonstrations=10, epochs=2, batch=4),
        "evaluation": replace(tiny.RECIPE.evaluation, levels=(), every=0),
    }
    return replace(tiny.RECIPE, **(given | changes))


def test_a_line_through_two_batches():
    assert SPEED.decode(FEW) == pytest.approx(0.1)
    assert SPEED.decode(MANY) == pytest.approx(SPEED.many)
    assert SPEED.decode(FEW + 10) == pytest.approx(0.2)
    noisy = replace(SPEED, many=0.05)  # a measurement in which more rows took less
    assert noisy.decode(64) == pytest.approx(0.1)


def test_the_time_of_a_run_by_hand():
    found = combine(recipe(), EPISODE, SPEED)
    assert found.demonstrations == 10 * 0.5
    # 2 epochs of 10 rows with 100 tokens, and 2 x 3 steps, since a batch has 4 of 10 rows.
    assert found.start == pytest.approx(2 * 10 * 100 * 0.02 + 2 * 3 * 0.5)
    # 8 leaves of (4 + 12) / 2 = 8 steps: 12 rounds, in which 8 * 8 / 12 = 16/3 rows are active.
    active = 16 / 3
    growing = 12 * (10 * (0.1 + 0.01 * (active - FEW)) + active * 20 * 0.001) + 8 * 2 * 0.5
    assert found.iteration == pytest.approx(growing + 8 * 2 * 100 * 0.01)
    assert found.total == pytest.approx(found.demonstrations + found.start + 3 * found.iteration)
    assert list(found.phases) == ["demonstrations", "cold start", "train"]
    with_reference = combine(recipe(loss=replace(tiny.RECIPE.loss, kl=0.01)), EPISODE, SPEED)
    assert with_reference.iteration - found.iteration == pytest.approx(8 * 2 * 100 * 0.001)


def test_evaluations_are_counted():
    settings = replace(tiny.RECIPE.evaluation, levels=("L0", "L1"), every=2, dev_tasks=3, batch=64)
    found = combine(recipe(evaluation=settings), EPISODE, SPEED)
    assert found.developments == 2  # after the iterations 2 and 3
    assert list(found.phases)[2:] == [
        "evaluate L0 before",
        "evaluate L1 before",
        "train",
        "evaluate L0 after",
        "evaluate L1 after",
    ]
    assert found.phases["train"] == pytest.approx(3 * found.iteration + 2 * found.development)
    assert "evaluation before and after" in found.sentence()


@pytest.mark.parametrize("model", ["scratch", "saved"])
def test_a_measurement_leaves_random_states_alone(model):
    settings = recipe() if model == "scratch" else recipe(model=str(qwen.folder()), weights=Weights(dtype="bfloat16"))
    before = torch.get_rng_state()
    found = asyncio.run(forecast(settings))
    assert found is not None
    assert torch.equal(before, torch.get_rng_state())
    assert min(found.phases.values()) > 0


def test_a_model_that_is_not_here_is_not_measured():
    assert asyncio.run(forecast(recipe(model="somebody/model"))) is None


def test_a_dry_run_tells_the_time(capsys):
    assert main(["train", "tiny:recipe", "--dry-run"]) == 0
    assert "\ntime: about " in capsys.readouterr().out
