"""Studies in one file: what was packed is read again, counts as done, and prints the tables that the documents hold."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import RECIPE

from spark_rl.cli import main
from spark_rl.config.codec import encode
from spark_rl.errors import UsageError
from spark_rl.experiments.compare.cells import Cell, prepared
from spark_rl.experiments.compare.results import Results, Study
from spark_rl.experiments.compare.study import header, pack, read_study, unpack, write_study
from spark_rl.objective.preferences import Preferences
from spark_rl.recipes.algorithms import with_algorithm

REPOSITORY = Path(__file__).resolve().parents[3]


def evaluation(wins: int, **more: Any) -> dict[str, Any]:
    """Of eight tasks, four of each of two types; `clean` was won as often as can be."""
    kinds = {"clean": {"wins": min(wins, 4), "tasks": 4}, "heat": {"wins": max(0, wins - 4), "tasks": 4}}
    types = (kinds["clean"]["wins"] / 4 + kinds["heat"]["wins"] / 4) / 2
    rates = {
        "success": wins / 8,
        "wins": wins,
        "tasks": 8,
        "score": wins / 8,
        "steps": 7.0,
        "tokens": 80.5,
        "env_steps": 7.0,
    }
    return rates | {"kinds": kinds, "averages": {"success": {"tasks": wins / 8, "types": types}}} | more


def result(arm: str, seed: int, **more: Any) -> Any:
    recipe = replace(with_algorithm(prepared(RECIPE), arm), seed=seed)
    points = [{"iteration": 0.0, "generated": 0.0, "success": 0.25}, {"iteration": 2.0, "generated": 10.5, "success": 0.5}]
    found = {"before": {"L1": evaluation(2 + seed)}, "after": {"L1": evaluation(5 + seed)}}
    said = {"arm": arm, "seed": seed, "recipe": recipe.name, "curve": points, "training_success": [0.25, 0.5]}
    return said | found | {"settings": encode(recipe)} | more


def saved(path: Path, results: list[Any]) -> Path:
    write_study(path, *pack(results, "study", "spark-rl compare"))
    return path


def test_what_was_packed_is_read_again_and_is_small(tmp_path):
    results = [result(arm, seed) for seed in (0, 1, 2) for arm in ("grpo", "gigpo", "strategic")]
    path = saved(tmp_path / "study.jsonl", results)
    assert unpack(*read_study(path)) == results
    head, lines = read_study(path)
    assert (head["format"], head["version"], head["study"], head["command"]) == (
        "spark-rl-results", 1, "study", "spark-rl compare",
    )  # fmt: skip
    kinds = {"clean": [2, 4], "heat": [0, 4]}
    assert lines[0]["before"] == {"L1": [None, 2, 8, None, 7, 80.5, None, kinds, None]}
    assert [("before" in line) for line in lines] == [True, False, False] * 3, "arms of a seed share their cold start"
    assert lines[0]["curve"] == {"iteration": [0, 2], "generated": [0, 10.5], "success": [0.25, 0.5]}
    assert head["arms"]["grpo"] == {"settings": {}}, "the base is the first cell's"
    assert set(head["arms"]["gigpo"]["settings"]) == {"name", "advantage"}
    assert head["arms"]["strategic"]["settings"]["tree"] == {"roots": 2, "cap": 8}


@pytest.mark.parametrize(
    "odd",
    [
        {"after": {"L1": evaluation(5, pass_at={"1": 0.5}, branching={"alone": 0.5})}},
        {"after": {"L1": evaluation(5, success=0.3, score=0.1, env_steps=9.0)}},
        {"after": {"L1": evaluation(5, averages={"success": {"tasks": 0.1, "types": 0.2}, "score": {"tasks": 0.3}})}},
        {"after": {"L1": {"success": 0.5}}},
        {"after": {"L1": evaluation(0, tasks=0, kinds={})}},
        {"after": {}, "before": {}},
        {"evaluations": {"--samples 2": {"L1": evaluation(1)}}},
        {"arm": "eto", "explore_ratio": [0.1, 0.2], "preferences": encode(Preferences(batch=4))},
        {"settings": encode(replace(with_algorithm(prepared(RECIPE), "gigpo"), seed=1, iterations=9))},
        {"settings": {name: value for name, value in result("gigpo", 1)["settings"].items() if name != "log"}},
    ],
)
def test_odd_results_are_read_again_as_well(odd):
    results = [result("grpo", 0), result("gigpo", 0), result("grpo", 1), result("gigpo", 1) | odd]
    head, lines = pack(results, "study", "command")
    assert unpack(json.loads(json.dumps(head)), json.loads(json.dumps(lines))) == results


def test_what_would_not_be_read_again_is_refused():
    with pytest.raises(ValueError, match="result of grpo with seed 1 would not be read back"):
        pack([result("grpo", 0), result("grpo", 1) | {"recipe": "another"}], "study", "command")


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "study.jsonl"
    with pytest.raises(UsageError, match="is no file of results"):
        read_study(path)
    path.write_text('{"seed": 1}\n')
    with pytest.raises(UsageError, match="its first line must say spark-rl-results"):
        read_study(path)
    write_study(path, header("study", "command") | {"version": 2}, [])
    with pytest.raises(UsageError, match="has version 2"):
        read_study(path)


def test_a_cell_of_a_study_is_done_under_any_name_and_others_are_refused(tmp_path):
    study = Study.read(saved(tmp_path / "study.jsonl", [result("grpo", 0)]))
    results = Results(tmp_path / "out", (study,))
    cell = Cell("grpo", with_algorithm(prepared(RECIPE), "grpo"))
    assert results.done(cell)
    assert results.result(cell) == result("grpo", 0)
    assert results.result(replace(cell, arm="own")) == result("grpo", 0) | {"arm": "own"}
    assert not results.done(replace(cell, evaluations=("--samples 2",)))
    assert results.result(replace(cell, recipe=replace(cell.recipe, seed=1))) is None
    assert results.result(Cell("chains", cell.recipe, preferences=Preferences())) is None, "ETO is another experiment"
    with pytest.raises(UsageError, match=r"study.jsonl holds seed-0.grpo with other settings"):
        results.result(replace(cell, recipe=replace(cell.recipe, iterations=99)))


def test_what_lies_in_the_directory_comes_before_a_study(tmp_path):
    study = Study.read(saved(tmp_path / "study.jsonl", [result("grpo", 0)]))
    results = Results(tmp_path, (study,))
    cell = Cell("grpo", with_algorithm(prepared(RECIPE), "grpo"))
    results.save(cell, result("grpo", 0, training_success=[1.0]))
    found = results.result(cell)
    assert found is not None
    assert found["training_success"] == [1.0]


STUDIES = sorted((REPOSITORY / "results").glob("*.jsonl"))


@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_every_study_has_a_header_and_a_document_that_links_to_it(path):
    head, lines = read_study(path)
    assert head["study"] == path.stem
    assert lines
    documents = [page.read_text() for page in (REPOSITORY / "docs" / "results").glob("*.md")]
    assert any(f"](../../results/{path.name})" in text for text in documents)


@pytest.mark.parametrize("study", ["sokoban_cpu", "webshop_cpu", "tables_cpu"])
def test_the_command_in_a_study_prints_the_tables_of_its_document(study, tmp_path, monkeypatch, capsys):
    if not STUDIES:
        pytest.skip("a source distribution holds no results")
    monkeypatch.chdir(REPOSITORY)
    head, _ = read_study(REPOSITORY / "results" / f"{study}.jsonl")
    words = shlex.split(head["command"].replace("--out DIR", f"--out {tmp_path / 'out'}"))
    assert main([*words[1:], "--quiet"]) == 0
    printed = rows(capsys.readouterr().out)
    written = rows((REPOSITORY / "docs" / "results" / f"{study}.md").read_text())
    assert len(printed) > 10
    assert not [row for row in printed if row not in written]
    assert not (tmp_path / "out" / "cells").exists(), "nothing was run"


def rows(text: str) -> list[str]:
    """The rows of all tables."""
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
