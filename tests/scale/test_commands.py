"""`sft`, `eto` and `eval` with ranks: what they write is what one process writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
from ranked import apart, begin, finish

from spark_rl import load_forest
from spark_rl.models.load import load_model

pytestmark = pytest.mark.slow


def spark_rl(*words: object) -> None:
    """Run a command that must succeed."""
    code, err = finish(begin(*words, "--yes"))
    assert code == 0, err


def moved(one: Path, other: Path, start: Path) -> float:
    """The distance of two models as a share of the first one's way from the start."""
    return apart(*(load_model(folder).state_dict() for folder in (one, other, start)))


def test_an_evaluation_is_that_of_one_process_and_goes_on(tmp_path):
    """Also where one process has played a part of it, and where a batch has fewer tasks than there are ranks."""
    run, common = tiny.finished()[0], ("--level", "L0", "L1", "--samples", 2, "--temperature", 0.8, "--batch", 3)
    spark_rl("eval", run.directory, *common, "--out", tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for name in ("results.json", "results.md"):
        (tmp_path / "two" / name).unlink()
    lines = (tmp_path / "one" / "episodes.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two" / "episodes.jsonl").write_text("".join(lines[:5]))
    spark_rl("eval", run.directory, *common, "--out", tmp_path / "two", "--scale.ranks", 2)
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert {level: (each["wins"], each["steps"]) for level, each in one.items()} == {
        level: (each["wins"], each["steps"]) for level, each in two.items()
    }
    assert len((tmp_path / "two" / "episodes.jsonl").read_text().splitlines()) == len(lines)


def test_learning_from_failures_is_that_of_one_process(tmp_path):
    run = tiny.finished()[0]
    words = ("eto", run.directory, "--winner", "demonstrated", "--tasks", 6, "--probe", 2, "--iterations", 2)
    spark_rl(*words, "--out", tmp_path / "one")
    spark_rl(*words, "--out", tmp_path / "two", "--scale.ranks", 2)
    for iteration in (1, 2):
        one, two = (load_forest(tmp_path / name, iteration) for name in ("one", "two"))
        assert [[node.text for node in tree.nodes] for tree in one] == [[node.text for node in tree.nodes] for tree in two]
    one, two = (tmp_path / name / "checkpoints" / "000002" for name in ("one", "two"))
    assert moved(one, two, run.checkpoints / "cold-start") < 1e-3


def test_a_cold_start_by_itself_takes_ranks(tmp_path):
    words = ("sft", "tiny:recipe", "--cold-start.epochs", 1, "--cold-start.optimizer", "adamw", "--probe", 3)
    spark_rl(*words, "--cold-start.learning-rate", 1e-3, "--out", tmp_path / "run", "--scale.ranks", 2)
    spark_rl(*words, "--cold-start.learning-rate", 1e-3, "--out", tmp_path / "other")
    one, two = (load_model(tmp_path / name / "checkpoints" / "cold-start").state_dict() for name in ("other", "run"))
    assert apart(one, two, {name: 0 * weight for name, weight in one.items()}) < 1e-4
    assert json.loads((tmp_path / "run" / "probe.json").read_text())["tasks"] == 3
