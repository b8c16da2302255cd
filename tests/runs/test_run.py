"""The run directory: what is written comes back, and what a crash leaves can be read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from trees import draw

from spark_rl import load_forest
from spark_rl.config.recipe import Keep, Recipe
from spark_rl.environments.household import Household
from spark_rl.errors import StorageError, UsageError
from spark_rl.evaluation.results import summary
from spark_rl.runs.run import Run
from spark_rl.types import Forest, Spent

RECIPE = Recipe("drawn", Household(), keep=Keep(forests=2))


@dataclass(frozen=True)
class Elsewhere(Household):
    """A world of somebody else's."""


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "run", RECIPE)


def test_a_run_opens_with_its_recipe_and_settings(run):
    run.save_settings(threads=2)
    opened = Run.open(run.directory)
    assert opened.recipe == RECIPE
    assert opened.settings == {"threads": 2}
    assert not opened.finished
    assert opened.metrics() == []
    assert opened.evaluations() == {}


def test_a_directory_is_no_second_run_and_no_run_by_itself(run, tmp_path):
    with pytest.raises(UsageError, match=r"already holds a run: --resume .* continues it; or give another --out"):
        Run.create(run.directory, RECIPE)
    with pytest.raises(UsageError, match=r"holds no run \(there is no recipe.json\)"):
        Run.open(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"recipe": {}}', '{"recipe": 3, "settings": {}}', '{"recipe": {"a": 1}, "settings": {}}']
)
def test_a_broken_recipe_is_named(run, content):
    (run.directory / "recipe.json").write_text(content)
    with pytest.raises(StorageError, match=r"recipe.json .*restore it or start a new run"):
        Run.open(run.directory)


def test_code_from_elsewhere_is_imported_only_when_allowed(tmp_path):
    run = Run.create(tmp_path / "run", replace(RECIPE, env=Elsewhere()))
    asked: list[str] = []
    with pytest.raises(UsageError, match="Elsewhere, which is not part of spark-rl"):
        Run.open(run.directory, foreign=lambda place: bool(asked.append(place)))
    assert asked == [f"{__name__}:Elsewhere"]
    assert Run.open(run.directory, foreign=lambda _: True).recipe.env == Elsewhere()


def test_rows_come_back_in_order_and_a_torn_last_line_is_left_out(run):
    rows = [{"iteration": float(i), "success": i / 7} for i in (1, 2, 3)]
    for row in rows:
        run.log(row)
    assert run.metrics() == rows
    file = run.directory / "metrics.jsonl"
    file.write_text(file.read_text()[:-9])
    assert run.metrics() == rows[:2]
    run.rewind(2)
    run.log(rows[2])
    assert run.metrics() == rows


def test_rewinding_forgets_rows_and_forests_after_an_iteration(run):
    for iteration in (3, 4):
        run.save_forest(Forest([draw([-1])], iteration))
        run.log({"iteration": iteration})
    run.rewind(3)
    assert [row["iteration"] for row in run.metrics()] == [3]
    assert [path.name for path in run.forests.iterdir()] == ["000003.jsonl.gz"]
    run.rewind(0)
    assert run.metrics() == list(run.forests.iterdir()) == []


def test_the_newest_forests_are_kept(run):
    forests = [Forest([draw([-1, 0, 0][: 1 + i % 3])], i) for i in range(8, 13)]
    for forest in forests:
        run.save_forest(forest)
    assert sorted(path.name for path in run.forests.iterdir()) == ["000011.jsonl.gz", "000012.jsonl.gz"]
    assert load_forest(run.directory) == forests[-1]
    assert load_forest(run.directory, 11) == forests[-2]


def test_evaluations_are_kept_side_by_side_and_finish_the_run(run):
    tree = draw([-1], {0: 1.0})
    won, lost = (summary([tree.task], trees, Spent(), []) for trees in ([tree], []))
    run.save_evaluation("before", {"L0": lost})
    assert not run.finished
    run.save_evaluation("after", {"L0": won})
    assert run.finished
    assert run.evaluations() == {"before": {"L0": lost}, "after": {"L0": won}}


def test_an_evaluation_that_cannot_be_read_is_named(run):
    (run.directory / "eval.json").write_text('{"before": {"L0": {"wins": 1}}}')
    with pytest.raises(StorageError, match=r"eval.json: a result has no success.* delete it to evaluate again"):
        run.evaluations()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_in_one_sentence(run):
    (run.directory / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"metrics.jsonl could not be written \(No space left on device\)"):
        run.log({"iteration": 1})
