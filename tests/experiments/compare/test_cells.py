"""A comparison from the command line to its report, stopped and continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from tiny import RECIPE

from spark_rl.advantage.rows import Rows
from spark_rl.branching.chains import Chains
from spark_rl.cli import main
from spark_rl.commands.compare import _groups
from spark_rl.config.codec import encode
from spark_rl.config.recipe import Log, Optimizer, Recipe
from spark_rl.data.format import load
from spark_rl.engines.local.settings import Local
from spark_rl.errors import SparkError, UsageError
from spark_rl.experiments.compare.cells import FREE, Cell, prepared, shared
from spark_rl.experiments.compare.processes import Runner
from spark_rl.experiments.compare.results import Results
from spark_rl.experiments.compare.training import cold_start, curve, run_cell
from spark_rl.models.load import load_tokenizer
from spark_rl.objective.loss import Loss
from spark_rl.objective.rewards import Rewards
from spark_rl.prompting.instructions import MODES
from spark_rl.recipes.algorithms import with_algorithm
from spark_rl.runs.run import Run
from spark_rl.types import TreeShape

ARMS = ["--arms", "grpo,strategic", "--seeds", "2", "--jobs", "2"]
SMALL = [
    "--iterations", "2", "--evaluation.every", "1", "--evaluation.dev-tasks", "2", "--evaluation.levels", "L1",
    "--env.test-tasks", "2", "--cold-start.demonstrations", "30", "--cold-start.epochs", "2", "--keep.every", "1",
]  # fmt: skip


def compare(out: Path) -> int:
    return main(["compare", "tiny:recipe", *ARMS, *SMALL, "--out", str(out), "--quiet"])


def contents(out: Path) -> dict[str, dict[str, Any]]:
    """All results without the clock."""
    results = {path.name: json.loads(path.read_text()) for path in sorted((out / "cells").iterdir())}
    for result in results.values():
        for point in result["curve"]:
            del point["seconds"]
    return results


# -- without a process ---------------------------------------------------------------------------------------------------


def test_a_curve_adds_up_what_was_spent_and_starts_at_the_cold_start():
    costs = {"trees": 2.0, "generated": 10.0, "env_steps": 5.0, "replayed": 1.0, "unique_steps": 5.0, "trained": 3.0}
    rows = [{"iteration": float(i), "leaves": 4.0, "seconds": 1.0, "success": 0.0, **costs} for i in (1, 2, 3)]
    rows[0]["dev_success"], rows[2]["dev_success"] = 0.5, 0.75
    points = curve(rows, 0.25)
    assert [point["iteration"] for point in points] == [0, 1, 3]
    assert [point["success"] for point in points] == [0.25, 0.5, 0.75]
    assert [point["leaves"] for point in points] == [0, 8, 24], "leaves a tree times trees"
    assert [point["generated"] for point in points] == [0, 10, 30]
    assert [point["env_steps"] for point in points] == [0, 6, 18], "replayed steps are steps"


def test_a_result_holds_its_settings_and_outlives_fields_that_came_later(tmp_path):
    results, cell = Results(tmp_path), Cell("grpo", with_algorithm(prepared(RECIPE), "grpo"))
    settings: Any = encode(cell.recipe)
    del settings["optimizer"]["resample"]
    path = tmp_path / "cells" / f"{cell.name}.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"settings": settings}))
    assert results.result(cell) == {"settings": settings}
    with pytest.raises(UsageError, match="made with other settings"):
        results.result(replace(cell, recipe=replace(cell.recipe, engine=Local(cache_gb=1.0))))


def test_a_result_without_its_run_is_evaluated_no_further(tmp_path):
    cell = Cell("grpo", prepared(RECIPE), evaluations=("--samples 2",))
    results = Results(tmp_path)
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / f"{cell.name}.json").write_text(json.dumps({"settings": encode(cell.recipe)}))
    assert not results.done(cell)
    with pytest.raises(UsageError, match=r"seed-0.grpo.json holds no evaluation --samples 2, and its run is not here"):
        run_cell(results, Runner(), cell)


def test_what_cannot_be_compared_is_refused(tmp_path):
    grpo = Cell("grpo", with_algorithm(prepared(RECIPE), "grpo"))
    results = Results(tmp_path)
    results.check([grpo, Cell("paper", with_algorithm(prepared(RECIPE), "paper"))])
    with pytest.raises(UsageError, match="two arms are both grpo"):
        results.check([grpo, grpo])
    colder = replace(grpo.recipe, cold_start=replace(RECIPE.cold_start, tags="sparse"))
    with pytest.raises(UsageError, match="arm own changes world, model, cold start"):
        results.check([grpo, Cell("own", colder)])
    Run.create(tmp_path / "runs" / "seed-0" / "grpo", replace(grpo.recipe, iterations=9))
    with pytest.raises(UsageError, match="begun with other settings"):
        results.check([grpo])


@dataclass(frozen=True)
class Telepathy(Local):
    """Another engine."""


@dataclass(frozen=True)
class LaterTree(TreeShape):
    """With a setting of a later version."""

    spread: int = 1


@dataclass(frozen=True)
class LaterRecipe(Recipe):
    """With settings of a later version."""

    tree: TreeShape = LaterTree()
    curriculum: str = "none"


@pytest.mark.parametrize(
    "change",
    [{"curriculum": "hard"}, {"tree": LaterTree(spread=2)}, {"engine": Telepathy()}, {"threads": 2}],
)
def test_a_setting_that_comes_later_is_compared_unless_somebody_frees_it(tmp_path, change):
    before = prepared(RECIPE)
    known: dict[str, Any] = {field.name: getattr(before, field.name) for field in fields(before)} | {"tree": LaterTree()}
    recipe = LaterRecipe(**known)
    cells = [Cell("first", recipe), Cell("second", replace(recipe, iterations=9))]
    Results(tmp_path).check(cells)
    with pytest.raises(UsageError, match="arm second changes world, model"):
        Results(tmp_path).check([cells[0], replace(cells[1], recipe=replace(recipe, **change), start="")])


def test_what_is_free_is_a_setting_and_not_compared():
    for name in FREE:
        assert attrgetter(name)(RECIPE) is not None, "a name that is no setting frees nothing"
    other = replace(
        RECIPE,
        name="other",
        iterations=77,
        tasks_per_iteration=5,
        keep=replace(RECIPE.keep, every=9),
        tree=replace(RECIPE.tree, budget=9, roots=3, cap=11, counted="active"),
        branching=Chains(),
        sampling=replace(RECIPE.sampling, temperature=0.3),
        evaluation=replace(RECIPE.evaluation, every=7, levels=("L2",)),
        engine=Local(cache_gb=3.0),
        rewards=Rewards(scale=2.0),
        advantage=Rows(),
        loss=Loss(entropy=0.5),
        optimizer=Optimizer(epochs=7),
        log=Log(wandb="project"),
    )
    assert shared(other) == shared(RECIPE)
    assert shared(replace(RECIPE, tree=replace(RECIPE.tree, horizon=9))) != shared(RECIPE)
    assert shared(replace(RECIPE, sampling=replace(RECIPE.sampling, max_tokens=5))) != shared(RECIPE)
    assert shared(replace(RECIPE, evaluation=replace(RECIPE.evaluation, dev_tasks=5))) != shared(RECIPE)


def test_an_arm_with_another_prompt_cold_start_or_adapters_has_a_start_of_its_own(tmp_path):
    recipes = [with_algorithm(prepared(RECIPE), arm) for arm in ("grpo", "rlvmr", "paper", "rlvmr")]
    arms = ["grpo", "rlvmr", "paper", "again"]
    groups = _groups(arms, recipes, 2)
    assert [[(cell.arm, cell.recipe.seed, cell.start) for cell in group] for group in groups] == [
        [("grpo", 0, ""), ("paper", 0, "")],
        [("rlvmr", 0, "rlvmr"), ("again", 0, "rlvmr")],
        [("grpo", 1, ""), ("paper", 1, "")],
        [("rlvmr", 1, "rlvmr"), ("again", 1, "rlvmr")],
    ]
    adapted = replace(recipes[0], weights=replace(recipes[0].weights, lora_rank=4))
    assert [group[0].start for group in _groups(["grpo", "lora"], [recipes[0], adapted], 1)] == ["", "lora"]
    results = Results(tmp_path)
    results.check([cell for group in groups for cell in group])
    longer = replace(recipes[1], tree=replace(recipes[1].tree, horizon=9))
    with pytest.raises(UsageError, match="arm own changes world"):
        results.check([cell for group in _groups(["grpo", "own"], [recipes[0], longer], 1) for cell in group])


def test_a_failing_cell_names_its_log(tmp_path):
    broken: Recipe = replace(RECIPE, cold_start=replace(RECIPE.cold_start, demonstrations=0))
    with pytest.raises(SparkError, match=r"code 2 .*a model from scratch needs demonstrations.*see .*seed-0\.cold\.log"):
        cold_start(Results(tmp_path), Runner(), Cell("grpo", broken))


def test_a_process_that_starts_while_all_are_stopped_is_stopped_too(tmp_path, monkeypatch):
    runner, stopping = Runner(), list[threading.Thread]()
    start = subprocess.Popen

    def start_and_stop(*arguments: Any, **options: Any):
        """A real process; before its caller knows of it another thread stops all, and is given the time to."""
        process = start(*arguments, **options)
        stopping.append(threading.Thread(target=runner.stop))
        stopping[0].start()
        stopping[0].join(0.2)
        return process

    monkeypatch.setattr(subprocess, "Popen", start_and_stop)
    # Before Python can stop, the signal ends it (-15). Python itself reports a stop during an import as -2: some modules
    # run text with `exec`, and a KeyboardInterrupt that leaves `exec` ends the process that way, although it was caught.
    with pytest.raises(SparkError, match=r"household-tiny --out` ended with code (-15 |(-2|130) .*stopped)"):
        runner.call(tmp_path / "log", "train", "household-tiny", "--out", str(tmp_path / "run"))
    stopping[0].join()
    assert not (tmp_path / "run" / "checkpoints").exists(), "it was ended, and did not fail by itself"
    with pytest.raises(SparkError, match=r"^stopped$"):
        runner.call(tmp_path / "log", "--version")


def test_arms_must_be_known(tmp_path, capsys):
    assert main(["compare", "quickstart", "--arms", "grpo,papr", "--out", str(tmp_path)]) == 2
    assert 'did you mean "paper"?' in capsys.readouterr().err
    assert main(["compare", "quickstart", "--seeds", "0", "--out", str(tmp_path)]) == 2
    assert "at least 1" in capsys.readouterr().err


# -- with processes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A finished comparison."""
    directory = tmp_path_factory.mktemp("compare") / "out"
    assert compare(directory) == 0
    return directory


@pytest.mark.slow
def test_each_cell_has_its_result_and_all_arms_of_a_seed_their_cold_start(out):
    results = contents(out)
    assert list(results) == [f"seed-{seed}.{arm}.json" for seed in (0, 1) for arm in ("grpo", "strategic")]
    for result in results.values():
        assert [point["iteration"] for point in result["curve"]] == [0, 1, 2]
        assert set(result["before"]) == set(result["after"]) == {"L1"}
    for seed in (0, 1):
        both = [results[f"seed-{seed}.{arm}.json"] for arm in ("grpo", "strategic")]
        assert both[0]["before"] == both[1]["before"]
        assert both[0]["curve"][0] == both[1]["curve"][0]
        weights = {
            (path / "checkpoints" / "cold-start" / "model.safetensors").read_bytes()
            for path in [out / "cold" / f"seed-{seed}", *(out / "runs" / f"seed-{seed}").iterdir()]
        }
        assert len(weights) == 1
    report = (out / "report.md").read_text()
    assert "spark-rl compare tiny:recipe --arms grpo,strategic" in report
    assert "2 seeds (0, 1)" in report


@pytest.mark.slow
def test_a_comparison_that_is_ended_leaves_no_process(tmp_path):
    command = [sys.executable, "-m", "spark_rl", "compare", "quickstart", "--out", str(tmp_path / "out"), "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and len(list((tmp_path / "out" / "cold").glob("*/demonstrations.jsonl.gz"))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert said.splitlines()[-1] == "spark-rl: stopped; the same command continues it"
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.slow
def test_a_cell_that_was_killed_goes_on_and_the_others_are_not_run_again(out, tmp_path, capsys):
    again = shutil.copytree(out, tmp_path / "again")
    run = again / "runs" / "seed-1" / "strategic"
    recipe = Run.open(run).recipe
    shutil.rmtree(run)
    (again / "cells" / "seed-1.strategic.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (again / "cells").iterdir()}

    results, runner = Results(again), Runner()
    cell, said = Cell("strategic", recipe), list[str]()

    def work() -> None:
        try:
            run_cell(results, runner, cell)
        except SparkError as error:
            said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive() and not (run / "checkpoints" / "000001").exists():
        time.sleep(0.01)
    runner.stop()
    thread.join()
    assert said, "it was killed"
    assert results.result(cell) is None
    assert (run / "checkpoints" / "000001").exists()

    assert compare(again) == 0
    assert contents(again) == contents(out)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    capsys.readouterr()


@pytest.mark.slow
def test_results_of_other_settings_are_refused(out, capsys):
    argv = ["compare", "tiny:recipe", *ARMS, *SMALL, "--loss.kl", "0.5", "--out", str(out), "--quiet"]
    assert main(argv) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_rlvmr_is_compared_from_its_own_cold_start(tmp_path, capsys):
    words = ["--arms", "grpo,rlvmr", "--seeds", "1", *SMALL, "--iterations", "1", "--out", str(tmp_path), "--quiet"]
    assert main(["compare", "tiny:recipe", *words]) == 0
    capsys.readouterr()
    assert {path.name for path in (tmp_path / "cold").iterdir()} == {"seed-0", "seed-0.rlvmr"}
    cold = Run.open(tmp_path / "cold" / "seed-0.rlvmr")
    assert {node.mode for shown in load(cold.demonstrations) for node in shown.tree.nodes} == set(MODES["rlvmr"])
    tokenizer: Any = load_tokenizer(cold.checkpoints / "cold-start")
    assert all(len(tokenizer(tag)["input_ids"]) == 1 for tag in cold.recipe.prompt.tags)
