"""Whatever state a run directory is in, what can be read is read, and what cannot is told in a sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from trees import draw

from spark_rl.config.recipe import Recipe
from spark_rl.environments.household import Household
from spark_rl.errors import UsageError
from spark_rl.evaluation.results import from_json
from spark_rl.report.reading import find_runs, names, read_run
from spark_rl.runs.run import Run
from spark_rl.types import Forest

RECIPE = Recipe("drawn", Household(), iterations=3, seed=7)


@dataclass(frozen=True)
class Elsewhere(Household):
    """A world of somebody else's."""


@pytest.fixture
def run(tmp_path) -> Run:
    """Two of three iterations, with a checkpoint."""
    run = Run.create(tmp_path / "runs" / "one", RECIPE)
    for iteration in (1, 2):
        run.save_forest(Forest([draw([-1, 0, 0], {1: 1.0, 2: 0.0})], iteration=iteration))
        run.log({"iteration": float(iteration), "success": 0.5})
    (run.checkpoints / "000002").mkdir(parents=True)
    return run


def test_a_sound_run_is_read_without_remarks(run):
    reading = read_run(run.directory)
    assert reading.recipe == RECIPE
    assert (reading.label, reading.seed, reading.planned, reading.state) == ("drawn", 7, 3, "2 of 3 iterations")
    assert [row["iteration"] for row in reading.rows] == [1, 2]
    assert reading.forests == (1, 2)
    assert reading.notes == ()
    run.save_evaluation("after", {"L0": from_json({"success": 1.0, "low": 0.2, "high": 1.0, "wins": 1, "tasks": 1})})
    assert read_run(run.directory).state == "finished"


def test_a_last_line_cut_short_is_left_out_and_said(run):
    with (run.directory / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 3.0, "succ')
    reading = read_run(run.directory)
    assert len(reading.rows) == 2
    assert reading.notes == ("The last line was cut short or broken in metrics.jsonl, and left out.",)


def test_lines_after_a_broken_one_are_not_trusted(run):
    (run.directory / "metrics.jsonl").write_text('{"iteration": 1.0}\n[]\n{"iteration": 3.0}\n')
    reading = read_run(run.directory)
    assert len(reading.rows) == 1
    assert reading.notes == ("The lines from 2 on were cut short or broken in metrics.jsonl, and left out.",)


def test_a_run_without_a_checkpoint_is_shown_and_said(run):
    (run.checkpoints / "000002").rmdir()
    assert read_run(run.directory).notes == (
        "There is no checkpoint: the run can be looked at, but neither resumed nor evaluated.",
    )


def test_a_recipe_of_another_version_costs_the_advantages_only(run):
    saved = json.loads((run.directory / "recipe.json").read_text())
    saved["recipe"]["prompt"]["context"]["repeat_everything"] = True
    saved["version"] = "0.0.9"
    (run.directory / "recipe.json").write_text(json.dumps(saved))
    reading = read_run(run.directory)
    assert reading.recipe is None
    assert (reading.label, reading.seed) == ("drawn", 7)
    assert len(reading.rows) == 2
    [note] = reading.notes
    assert note.startswith("Its recipe cannot be used (written by version 0.0.9, this is ")
    assert "repeat_everything" in note


def test_code_from_elsewhere_is_not_imported_unasked(tmp_path):
    run = Run.create(tmp_path / "run", replace(RECIPE, env=Elsewhere()))
    assert read_run(run.directory).recipe is None
    assert read_run(run.directory, foreign=lambda _: True).recipe == run.recipe


@pytest.mark.parametrize("content", ["", "[]", "3", '{"recipe": []}', '{"recipe": {"type": 3}}', "\x00", '{"recipe": null}'])
@pytest.mark.parametrize("name", ["recipe.json", "eval.json"])
def test_broken_files_are_named_and_the_rest_is_read(run, name, content):
    (run.directory / name).write_text(content)
    reading = read_run(run.directory)
    assert len(reading.rows) == 2
    assert reading.forests == (1, 2)
    assert reading.notes


def test_forests_that_cannot_be_read_say_why(run):
    (run.forests / "000001.jsonl.gz").write_bytes(b"nothing of the kind")
    reading = read_run(run.directory)
    assert "not a readable forest" in str(reading.open_forest(1))
    assert isinstance(reading.open_forest(2), Forest)
    assert isinstance(reading.open_forest(9), str)


# -- finding ------------------------------------------------------------------------------------------------------------


def test_runs_are_found_in_folders_of_folders_each_once(run, tmp_path):
    other = Run.create(tmp_path / "runs" / "more" / "two", RECIPE)
    (tmp_path / "runs" / ".half-made" / "three").mkdir(parents=True)
    (tmp_path / "runs" / ".half-made" / "three" / "recipe.json").write_text("{}")
    assert find_runs([tmp_path / "runs", run.directory]) == [other.directory, run.directory]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        find_runs([tmp_path])
    with pytest.raises(UsageError, match="is no folder"):
        find_runs([tmp_path / "nowhere"])


def test_names_are_as_short_as_they_can_be_told_apart():
    assert names([Path("/a/x"), Path("/a/y")]) == ["x", "y"]
    assert names([Path("/a/b/x"), Path("/a/c/x"), Path("/d/y")]) == ["b/x", "c/x", "d/y"]
    assert names([]) == []
