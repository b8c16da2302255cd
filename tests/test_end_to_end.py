"""What a run leaves behind, from scratch to the evaluation after: read with no help from the code that wrote it."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import RECIPE, WORLD, Log, finished
from transformers import AutoModelForCausalLM, AutoTokenizer

import spark_rl
from spark_rl.data.format import load
from spark_rl.errors import UsageError
from spark_rl.evaluation.statistics import wilson
from spark_rl.learning.prepare import prepare
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.rollout.metrics import summarise
from spark_rl.runs.run import Run


@pytest.fixture(scope="module")
def run() -> Run:
    return finished()[0]


def test_a_run_directory_holds_all_there_is_to_a_run(run):
    names = {path.name for path in run.directory.iterdir()}
    assert names == {"recipe.json", "demonstrations.jsonl.gz", "metrics.jsonl", "forests", "checkpoints", "eval.json"}
    assert {path.name for path in run.checkpoints.iterdir()} == {"cold-start", "000002", "000004"}
    assert sorted(path.name for path in run.forests.iterdir()) == [f"00000{i}.jsonl.gz" for i in (1, 2, 3, 4)]
    assert not list(run.directory.rglob(".*")), "something half-written was left"


def test_the_recipe_is_saved_with_every_field_and_what_was_measured(run):
    saved = json.loads((run.directory / "recipe.json").read_text())
    fields = {"budget": 4, "roots": 2, "horizon": 8, "cap": 0, "pool": 0, "counted": "created"}
    assert saved["recipe"]["tree"] == {"type": "tree_shape", **fields}
    assert saved["settings"] == {"threads": 1}
    assert Run.open(run.directory).recipe == RECIPE


def test_eval_json_has_both_moments_and_every_task_in_its_denominators(run):
    saved = json.loads((run.directory / "eval.json").read_text())
    assert list(saved) == ["before", "after"]
    for results in saved.values():
        assert list(results) == ["L0", "L1"]
        for result in results.values():
            assert result["tasks"] == 5
            assert result["success"] == result["wins"] / 5
            assert (result["low"], result["high"]) == wilson(result["wins"], 5)
            assert sum(kind["tasks"] for kind in result["kinds"].values()) == 5
            assert sum(kind["wins"] for kind in result["kinds"].values()) == result["wins"]
            assert result["failed"] == 0
            assert 0 < result["steps"] <= RECIPE.tree.horizon


def test_each_iteration_has_a_row_that_its_forest_explains(run):
    rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert ["dev_success" in row for row in rows] == [False, True, False, True]
    for row in rows:
        forest = spark_rl.load_forest(run.directory, iteration=int(row["iteration"]))
        assert (summarise(forest) | {"trained": row["update_trained_tokens"]}).items() <= row.items()
        assert row["seconds"] >= row["seconds_generate"] > 0


def test_forests_are_read_back_last_by_default(run):
    forest = spark_rl.load_forest(run.directory)
    assert forest.iteration == 4
    assert len(forest) == RECIPE.tasks_per_iteration
    for tree in forest:
        assert RECIPE.tree.roots <= len(tree.leaves()) <= RECIPE.tree.budget
        assert tree.task.id.startswith("L0/train/")
    header = json.loads(gzip.decompress((run.forests / "000004.jsonl.gz").read_bytes()).splitlines()[0])
    assert (header["format"], header["version"], header["seed"]) == ("spark-rl-forest", 5, RECIPE.seed)


@pytest.mark.parametrize("name", ["cold-start", "000002", "000004"])
def test_transformers_loads_every_checkpoint_by_itself(run, name):
    folder = run.checkpoints / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    node = spark_rl.load_forest(run.directory, 1).trees[0].nodes[0]
    text = tokenizer.decode(node.prompt)
    assert tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) == node.prompt
    with torch.no_grad():
        logprobs = model(torch.tensor([node.prompt])).logits[0, -1].log_softmax(-1)
    exact = logprobs[node.completion[0]].item() == pytest.approx(node.logprobs[0], abs=1e-5)
    assert exact == (name == "cold-start"), "the first forest was sampled from the cold start"


def test_a_run_is_repeated_from_its_recipe_alone(run, tmp_path):
    copy = Run.create(tmp_path / "again", replace(Run.open(run.directory).recipe, threads=run.settings["threads"]))
    assert copy.recipe == run.recipe


def test_a_cold_start_from_a_file_is_that_from_the_demonstrations_in_it(run, tmp_path):
    given = replace(RECIPE.cold_start, data=str(run.demonstrations))
    copy = Run.create(tmp_path / "given", replace(RECIPE, threads=1, cold_start=given))
    model, tokenizer = asyncio.run(prepare(copy, Log()))
    assert copy.demonstrations.read_bytes() == run.demonstrations.read_bytes()
    both: list[Any] = [tokenizer, load_tokenizer(run.checkpoints / "cold-start")]
    assert both[0].get_vocab() == both[1].get_vocab()
    same = load_model(run.checkpoints / "cold-start").state_dict()
    assert all(torch.equal(weight, same[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"demonstrations": 61}, "holds 60 won demonstrations, fewer than the 61 of cold_start.demonstrations"),
        ({"data": "nowhere.jsonl"}, "names nowhere.jsonl, which does not exist: write it with `spark-rl demos"),
    ],
)
def test_a_file_that_cannot_be_learnt_from_is_refused(run, tmp_path, changes, sentence):
    cold_start = replace(RECIPE.cold_start, data=str(run.demonstrations))
    with pytest.raises(UsageError, match=sentence):
        asyncio.run(
            prepare(Run.create(tmp_path / "given", replace(RECIPE, cold_start=replace(cold_start, **changes))), Log())
        )


def test_a_file_in_other_modes_is_refused(run, tmp_path):
    given = replace(RECIPE.cold_start, data=str(run.demonstrations))
    other = replace(RECIPE, cold_start=given, prompt=replace(RECIPE.prompt, modes="rlvmr"))
    with pytest.raises(UsageError, match=r"answers in other modes than prompt\.modes rlvmr: write it"):
        asyncio.run(prepare(Run.create(tmp_path / "other", other), Log()))


def test_a_file_with_tasks_that_are_not_trained_on_is_refused(run, tmp_path):
    recipe = replace(RECIPE, cold_start=replace(RECIPE.cold_start, data=str(run.demonstrations)))
    tasks = {shown.tree.task.id for shown in load(run.demonstrations)}
    few = replace(recipe, env=replace(WORLD, train_tasks=3))
    assert not tasks <= {task.id for task in few.env.tasks("L0", "train")}
    with pytest.raises(UsageError, match="which is no training task of household on level L0"):
        asyncio.run(prepare(Run.create(tmp_path / "few", few), Log()))
