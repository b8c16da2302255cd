"""A real grid from the command line, stopped and continued."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from spark_rl.cli import main
from spark_rl.errors import SparkError
from spark_rl.experiments.compare.cells import Cell
from spark_rl.experiments.compare.processes import Runner
from spark_rl.experiments.compare.results import Results
from spark_rl.experiments.compare.training import run_cell
from spark_rl.experiments.paper.published import TABLES
from spark_rl.experiments.paper.table import Arm, Column, Row, Table
from spark_rl.objective.preferences import Preferences
from spark_rl.runs.run import Run

TOY = Table(
    "toy",
    "Chains, and a vote among what trees have taught",
    "nowhere",
    (Column("ALFWorld L0", "alfworld"),),
    (
        Row("chains", Arm("grpo"), (76.6,)),
        Row("trees with a vote", Arm(evaluation="--choose majority --among steps"), (98.4,)),
        Row("failures", Arm(options="--iterations 0", preferences=Preferences(batch=4, epochs=1)), (64.1,)),
    ),
    reference="chains",
)
SMALL = [
    "--env.kinds", "place", "--env.houses", "1", "--env.unseen-houses", "1", "--env.receptacles", "8", "9",
    "--env.objects", "6", "--env.train-tasks", "60", "--env.dev-tasks", "3", "--env.test-tasks", "3",
    "--model.hidden", "64", "--model.heads", "2", "--model.kv-heads", "1", "--model.intermediate", "192",
    "--iterations", "2", "--tasks-per-iteration", "2", "--tree.budget", "4", "--tree.roots", "2", "--tree.horizon", "8",
    "--evaluation.levels", "L0", "--evaluation.every", "1", "--evaluation.dev-tasks", "2", "--keep.every", "1",
    "--cold-start.demonstrations", "30", "--engine.cache-gb", "0.1",
]  # fmt: skip


def run(out: Path) -> int:
    return main(["paper", "toy", "--scale", "tiny", *SMALL, "--seeds", "1", "--jobs", "2", "--out", str(out), "--quiet"])


def contents(out: Path) -> dict[str, dict[str, Any]]:
    """All results without the clock."""
    results = {path.name: json.loads(path.read_text()) for path in sorted((out / "cells").iterdir())}
    for result in results.values():
        for point in result["curve"]:
            del point["seconds"]
    return results


@pytest.mark.slow
def test_a_grid_that_was_stopped_goes_on_to_the_same_results_and_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TABLES, "toy", TOY)
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(whole) == 0
    printed = capsys.readouterr().out
    assert "| chains | " in printed
    assert "too few pairs (1)" in printed
    assert printed.count("Of fewer than 6 pairs of benchmark and seed no p below 0.05 can come.") == 1
    assert json.loads((whole / "toy.json").read_text())["rows"][1]["paper"] == [98.4]
    results = contents(whole)
    (learnt,) = (result for result in results.values() if "preferences" in result)
    assert learnt["preferences"]["batch"] == 4
    assert learnt["after"]["L0"]["tasks"] == learnt["before"]["L0"]["tasks"] == 3
    assert len(learnt["training_success"]) == 1, "an iteration of ETO"
    assert learnt["curve"][-1]["iteration"] == 0, "it takes no look on the way"
    (voted,) = (result for result in results.values() if "evaluations" in result)
    assert set(voted["evaluations"]) == {"--choose majority --among steps"}
    assert set(voted["evaluations"]["--choose majority --among steps"]) == {"L0"}
    assert len(voted["explore_ratio"]) == 2

    shutil.copytree(whole, again)
    (again / "cells" / f"seed-0.{voted['arm']}.json").unlink()
    directory = again / "runs" / "seed-0" / voted["arm"]
    cell = Cell(voted["arm"], Run.open(directory).recipe, next((again / "cold").iterdir()).name.removeprefix("seed-0."))
    shutil.rmtree(directory)
    stop_after_the_first_checkpoint(Results(again), cell, directory)

    assert run(again) == 0
    assert contents(again) == results
    assert (again / "toy.json").read_bytes() == (whole / "toy.json").read_bytes()


def stop_after_the_first_checkpoint(results: Results, cell: Cell, directory: Path) -> None:
    runner = Runner()
    stopped: list[SparkError] = []

    def work() -> None:
        try:
            run_cell(results, runner, cell)
        except SparkError as error:
            stopped.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive() and not (directory / "checkpoints" / "000001").exists():
        time.sleep(0.01)
    runner.stop()
    thread.join()
    assert stopped, "it was stopped before its end"
    assert results.result(cell) is None
