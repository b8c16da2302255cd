"""ETO end to end on a tiny run: what it leaves, that it goes on where it was stopped, and what is refused."""

from __future__ import annotations

import asyncio
import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from spark_rl import load_forest
from spark_rl.cli import main
from spark_rl.common.metrics import declared
from spark_rl.data.format import load
from spark_rl.learning.finetuning.eto import begin, improve, pairs_file
from spark_rl.models.load import load_model
from spark_rl.objective.preferences import Preferences
from spark_rl.runs.run import Run

SETTINGS = Preferences(iterations=2, tasks=6, epochs=1, batch=2, learning_rate=1e-4)
RECIPE = replace(tiny.RECIPE, name="tiny-eto", iterations=2)


def weights(run: Run, checkpoint: str) -> dict[str, torch.Tensor]:
    return load_model(run.checkpoints / checkpoint).state_dict()


def started(directory: Path) -> Run:
    return begin(directory, tiny.finished()[0], RECIPE, SETTINGS, 3)


def go(run: Run, log: tiny.Log) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        asyncio.run(improve(run, SETTINGS, 3, log))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    made = started(tmp_path_factory.mktemp("eto") / "run")
    go(made, tiny.Log())
    return made


@pytest.mark.slow
def test_each_iteration_leaves_forest_pairs_row_and_a_whole_model(run):
    demonstrated = {one.tree.task.id for one in load(run.demonstrations)}
    assert [row["iteration"] for row in run.metrics()] == [1, 2]
    for row in run.metrics():
        iteration = int(row["iteration"])
        forest = load_forest(run.directory, iteration)
        assert len(forest) == 6
        assert {tree.task.id for tree in forest} <= demonstrated
        lost = [tree for tree in forest if not tree.nodes[-1].success]
        both = load(pairs_file(run, iteration))
        assert row["pairs"] == len(lost) > 0
        assert [one.won for one in both] == [True, False] * len(lost)
        for tree, won, other in zip(lost, both[::2], both[1::2], strict=True):
            assert won.tree.task.id == other.tree.task.id == tree.task.id
            assert [node.text for node in other.tree.nodes] == [node.text for node in tree.nodes]
            assert (won.origin.source, other.origin.source) == ("expert", "played")
        assert {"dpo_loss", "dpo_margin", "dpo_accuracy", "dev_success", "trained", "seconds"} <= row.keys()
        assert all(map(declared, row))
    cold, first, second = (weights(run, name) for name in ("cold-start", "000001", "000002"))
    for one, other in ((cold, first), (first, second)):
        assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(run, tmp_path):
    stopped = started(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        go(stopped, tiny.Log(stop_after=1))
    (stopped.directory / "pairs" / "000002.jsonl").write_text("half of what was lo")
    log = tiny.Log()
    go(started(tmp_path / "run"), log)
    assert "play, iteration 1" not in log.phases
    assert tiny.untimed(stopped.metrics()) == tiny.untimed(run.metrics())
    theirs = weights(run, "000002")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in weights(stopped, "000002").items())


@pytest.mark.slow
def test_the_commands_open_what_it_made_and_train_does_not_take_it_for_its_own(run, capsys, tmp_path):
    assert main(["eval", str(run.directory), "--level", "L0", "--tasks", "2", "--quiet"]) == 0
    assert main(["show", str(run.directory)]) == 0
    assert main(["merge", str(run.directory), "--out", str(tmp_path / "model"), "--quiet"]) == 0
    text = (tmp_path / "model" / "README.md").read_text()
    assert "| then | ETO: `Preferences(iterations=2, tasks=6," in text
    assert "advantage" not in text, "no reinforcement learning took part"
    capsys.readouterr()
    for words in (["--resume", run.directory], ["--from", run.directory, "--out", tmp_path / "again"]):
        assert main(["train", *map(str, words), "--quiet"]) == 2
        assert "was made by `spark-rl eto`" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_pairs_own_wins_too(capsys, tmp_path):
    out = tmp_path / "own"
    words = ["--tasks", "2", "--winner", "own", "--episodes", "3", "--epochs", "1", "--batch", "2", "--probe", "0"]
    assert main(["eto", str(tiny.finished()[0].directory), "--out", str(out), *words, "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("iteration 1: played 2 tasks, success ")
    (tree, _) = load_forest(out).trees
    assert len(tree.leaves()) == 3
    settings = json.loads((out / "recipe.json").read_text())["settings"]["eto"]
    assert settings["preferences"]["learning_rate"] == tiny.RECIPE.optimizer.learning_rate, "the recipe's own, by default"


@pytest.mark.slow
def test_what_cannot_be_done_is_one_sentence(run, capsys, tmp_path):
    source = str(tiny.finished()[0].directory)
    assert main(["eto", source, "--out", str(run.directory), "--beta", "0.5", "--quiet"]) == 2
    assert "holds a run with other settings" in capsys.readouterr().err
    (tmp_path / "letters.txt").write_text("dear")
    assert main(["eto", source, "--out", str(tmp_path), "--quiet"]) == 2
    assert "holds something other than a run" in capsys.readouterr().err
    assert (tmp_path / "letters.txt").read_text() == "dear"
    bare = Run.create(tmp_path / "bare", tiny.RECIPE)
    assert main(["eto", str(bare.directory), "--quiet"]) == 2
    assert 'holds no checkpoint "cold-start"' in capsys.readouterr().err
