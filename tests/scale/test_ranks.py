"""Two ranks do what one process does: forests, updates, cold starts, preferences and whole runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import exact
import pytest
import ranked
import tiny
import torch

from spark_rl import load_forest
from spark_rl.common.ranks import ALONE
from spark_rl.models.load import load_model
from spark_rl.models.weights import Weights
from spark_rl.objective.loss import Loss
from spark_rl.runs.run import Run

RUNS = {"all": Weights(checkpointing=True), "adapters": Weights(lora_rank=4)}
LEARNING = {
    "iterations": 3,
    "loss": Loss(kl=0.02, entropy=0.01),
    "optimizer": replace(tiny.RECIPE.optimizer, minibatches=2, max_grad_norm=0.5, resample=1),
    "evaluation": replace(tiny.RECIPE.evaluation, levels=("L0",), every=2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A cold-started model and two runs that have it, for the ranks."""
    root = tmp_path_factory.mktemp("ranks")
    shutil.copytree(tiny.finished()[0].checkpoints / "cold-start", root / "start")
    for name, weights in RUNS.items():
        tiny.start(root / name, weights=weights, **LEARNING)
    return root


@pytest.fixture(scope="module")
def together(folder) -> dict[str, dict[str, Any]]:
    """What two ranks did."""
    return ranked.in_ranks(list(ranked.CASES), folder)


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory) -> Path:
    """The folder with the same runs for one process."""
    root = tmp_path_factory.mktemp("alone")
    shutil.copytree(folder / "start", root / "start")
    for name, weights in RUNS.items():
        tiny.start(root / name, weights=weights, **LEARNING)
    return root


@pytest.mark.parametrize("case", ["all", "all rows recomputed", "adapters"])
def test_updates_in_64_bits_are_those_of_one_process(case, together, alone):
    [expected], found = ranked.do([case], alone).values(), together[case]
    before = expected["before"] if case != "adapters" else {}
    assert ranked.apart(expected["weights"], found["weights"], before) < 1e-12
    for one, other in zip(expected["stats"], found["stats"], strict=True):
        assert one.pop("trained_tokens") <= other.pop("trained_tokens"), "smaller micro-batches share fewer beginnings"
        assert other == pytest.approx(one, rel=1e-9, abs=1e-12)
    assert expected["stats"][-1]["grad_norm"] > 0.1, "the gradient is clipped"
    assert found["noise"] == pytest.approx(expected["noise"], rel=1e-9)
    for number, moments in expected["moments"].items():
        assert all(torch.allclose(found["moments"][number][name], moments[name], rtol=1e-9, atol=1e-15) for name in moments)


def test_a_model_in_16_bits_has_the_optimiser_state_of_one_process(together, alone):
    """32-bit copies and moments by the same names: either loads the other's state to the bit."""
    [expected], found = ranked.do(["halves"], alone).values(), together["halves"]
    assert found["state"].keys() == expected["state"].keys()
    one = ranked.held(exact.model(seed=2, dtype=torch.bfloat16), ALONE)
    one.optimizer.load_state_dict(found["state"])
    for state in (found["again"], one.optimizer.state_dict()):
        assert all(torch.equal(x, y) for x, y in zip(state["copies"], found["state"]["copies"], strict=True))
        for number, moments in found["state"]["state"].items():
            assert all(torch.equal(state["state"][number][name], moments[name]) for name in moments)
    for weights in (found["weights again"], one.whole.state_dict()):
        assert all(torch.equal(weights[name], weight) for name, weight in found["weights"].items())
    before = exact.model(dtype=torch.bfloat16).state_dict()
    assert ranked.apart(expected["weights"], found["weights"], before) < 0.5, "rounding in 16 bits"


@pytest.mark.parametrize("case", ["answers", "one row", "prompts", "pairs"])
def test_fine_tuning_is_that_of_one_process(case, together, alone):
    [expected], found = ranked.do([case], alone).values(), together[case]
    assert ranked.apart(expected["weights"], found["weights"], expected["before"]) < 1e-4
    assert found["stats"][0] == pytest.approx(expected["stats"][0], rel=1e-4)
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-4)


def test_forests_are_those_of_one_process_whatever_the_rule(together, alone):
    [expected] = ranked.do(["forests"], alone).values()
    assert any(tree.forks for tree in expected["strategic"]["trees"])
    assert max(tree.opened for tree in expected["pools"]["trees"]) > tiny.RECIPE.tree.budget, "leaves have moved"
    assert together["forests"].keys() == expected.keys()
    for name, forest in expected.items():
        found = together["forests"][name]
        assert [ranked.sampled(tree) for tree in found["trees"]] == [ranked.sampled(tree) for tree in forest["trees"]], name
        assert (found["spent"], found["left"]) == (forest["spent"], forest["left"]), name


@pytest.mark.parametrize("name", list(RUNS))
def test_a_run_of_three_iterations_is_that_of_one_process(name, folder, together, alone):
    """The same trees, with dynamic sampling; weights within 1e-4 of the move; the same rows of metrics up to rounding."""
    ranked.do([f"run {name}"], alone)
    one, two = Run.open(alone / name), Run.open(folder / name)
    for iteration in (1, 2, 3):
        assert [ranked.sampled(tree) for tree in load_forest(one.directory, iteration)] == [
            ranked.sampled(tree) for tree in load_forest(two.directory, iteration)
        ]
    before, expected, found = (
        load_model(path).state_dict()
        for path in (one.checkpoints / "cold-start", one.checkpoints / "000003", two.checkpoints / "000003")
    )
    assert ranked.apart(expected, found, before) < 1e-4
    for row, other in zip(tiny.untimed(one.metrics()), tiny.untimed(two.metrics()), strict=True):
        known = {key: value for key, value in row.items() if "trained" not in key and key != "states_kept"}
        assert {key: other[key] for key in known} == pytest.approx(known, rel=1e-3, abs=1e-5)
    assert wins(one) == wins(two)


def wins(run: Run) -> dict[str, dict[str, tuple[int, int]]]:
    """Wins and episodes of each evaluation."""
    moments = run.evaluations().items()
    return {moment: {level: (each.wins, each.episodes) for level, each in levels.items()} for moment, levels in moments}
