"""Other places that a run is logged to: the same rows under the same names, replaced when they are logged again."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Log as Watcher
from tiny import start

from spark_rl.config.recipe import Log, Recipe
from spark_rl.environments.household import Household
from spark_rl.errors import MissingExtra
from spark_rl.learning.trainer import train
from spark_rl.runs.run import Run
from spark_rl.runs.trackers import trackers

RECIPE = Recipe("drawn", Household())


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="extra tensorboard")
    events = accumulator.EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_nothing_is_mirrored_unless_asked(tmp_path):
    with trackers(Run.create(tmp_path / "run", RECIPE)) as opened:
        assert opened == []


def test_tensorboard_shows_the_rows_and_drops_what_is_logged_again(tmp_path):
    pytest.importorskip("tensorboard", reason="extra tensorboard")
    run = Run.create(tmp_path / "run", replace(RECIPE, log=Log(tensorboard=True)))
    with trackers(run) as [board]:
        for iteration in (1, 2, 3):
            board.log({"iteration": float(iteration), "success": iteration / 4})
    with trackers(run) as [board]:  # resumed from the checkpoint of iteration 1
        board.log({"iteration": 2.0, "success": 0.0})
    assert scalars(run.directory / "tensorboard")["success"] == [(1, 0.25), (2, 0.0)]


def test_a_run_that_is_mirrored_has_its_metrics_in_both_places(tmp_path):
    pytest.importorskip("tensorboard", reason="extra tensorboard")
    run = start(tmp_path / "run", iterations=2, log=Log(tensorboard=True))
    train(run, Watcher())
    shown = scalars(run.directory / "tensorboard")
    for row in run.metrics():
        for name, value in row.items():
            assert dict(shown[name])[int(row["iteration"])] == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_weights_and_biases_gets_the_rows_and_goes_on_with_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = Run.create(tmp_path / "run", replace(RECIPE, log=Log(wandb="trees")))
    with trackers(run) as [copy]:
        copy.log({"iteration": 1.0, "success": 0.5})
    key = Run.open(run.directory).settings["wandb"]
    with trackers(Run.open(run.directory)) as [copy]:
        copy.log({"iteration": 2.0, "success": 0.75})
    kept = [path.name for path in (run.directory / "wandb").glob("offline-run-*")]
    assert len(kept) == 2
    assert all(name.endswith(key) for name in kept)


@pytest.mark.parametrize(("log", "module"), [(Log(tensorboard=True), "tensorboard"), (Log(wandb="trees"), "wandb")])
def test_a_missing_extra_is_named_before_anything_is_trained(tmp_path, monkeypatch, log, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    importlib.invalidate_caches()
    run = Run.create(tmp_path / "run", replace(RECIPE, log=log))
    with pytest.raises(MissingExtra, match=rf'pip install "spark-rl\[{module}\]"'), trackers(run):
        pass
