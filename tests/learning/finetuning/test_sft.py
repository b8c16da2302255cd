"""The cold start by itself: what is left out as too long, whose template is used, and the command."""

from __future__ import annotations

import asyncio
import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import qwen
import tiny
import torch
from trees import draw, node

from spark_rl.cli import main
from spark_rl.config.codec import encode
from spark_rl.config.recipe import ColdStart
from spark_rl.data.demonstrations import collect, tokenize
from spark_rl.data.format import Demonstration, load, save
from spark_rl.errors import UsageError
from spark_rl.evaluation.statistics import wilson
from spark_rl.learning.finetuning.sft import IGNORED, _examples, _fitting
from spark_rl.learning.trainer import train
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.recipes.household import quickstart
from spark_rl.runs.run import Run
from spark_rl.types import Task


def drawn() -> list[Demonstration]:
    """Rows of 4, 6 and 4 tokens, the first two of one task."""
    first, second = draw([-1, 0]), draw([-1])
    first.nodes[1] = node(0, (0, 0), prompt=(9, 9, 9, 9, 9), completion=(3,))
    second.task = Task("drawn", "drawn/2", "find the key")
    return [Demonstration(first), Demonstration(second)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).state_dict()


def same(one: Path, other: Path) -> bool:
    """Whether two model folders hold the same weights, bit for bit."""
    theirs = weights(other)
    return all(torch.equal(tensor, theirs[name]) for name, tensor in weights(one).items())


def mend(capsys, *argv: object) -> str:
    """The sentence of a command that fails."""
    assert main([*map(str, argv), "--quiet"]) == 2
    return capsys.readouterr().err


# -- rows -----------------------------------------------------------------------------------------------------------


def test_a_row_that_is_too_long_is_left_out_whole_and_told():
    said: list[str] = []
    rows = _examples(drawn(), 0.0)
    assert [len(row["input_ids"]) for row in rows] == [4, 6, 4]
    assert _fitting(rows, drawn(), 5, said.append) == [rows[0], rows[2]]
    assert said == [
        "cold start: 1 of 3 rows exceed cold_start.max_tokens 5 and are left out whole, 42.9% of the tokens; "
        "they are of drawn/1"  # 6 of 14
    ]


@pytest.mark.parametrize("most", [0, 6, 7])
def test_rows_that_fit_are_all_taken_and_nothing_is_said(most):
    rows = _examples(drawn(), 0.0)
    assert _fitting(rows, drawn(), most, pytest.fail) == rows


def test_no_row_that_fits_is_an_error():
    with pytest.raises(UsageError, match=r"3 of 3 rows exceed cold_start.max_tokens 3 .*raise it, or 0 for no limit"):
        _fitting(_examples(drawn(), 0.0), drawn(), 3, pytest.fail)


def test_large_recipes_have_the_papers_limits_and_small_ones_none():
    limits = {name: load_recipe(name).cold_start.max_tokens for name in RECIPES}
    papers = {"alfworld": 2048, "scienceworld": 3000, "webshop": 6000}
    for name, limit in limits.items():
        assert limit == (papers[name.partition("-")[0]] if "-qwen-" in name else 0)


def test_rows_are_the_models_own_template_and_answers_alone_are_learnt():
    _, tokenizer = qwen.plain(qwen.folder())
    prompt = Prompt(Transcript(), limit=50_000)
    shown = asyncio.run(collect(tiny.WORLD, 1, level="L0", horizon=30, prompt=prompt))[0]
    tree = tokenize(shown.tree, prompt, ChatEncoder(load_tokenizer(qwen.folder())))
    (row,) = _examples([Demonstration(tree)], 0.0)
    messages = [
        *prompt.render(tree, tree.nodes[-1].parent, None).messages,
        {"role": "assistant", "content": tree.nodes[-1].text},
    ]
    assert tokenizer.decode(row["input_ids"]) + "\n" == tokenizer.apply_chat_template(messages, tokenize=False)
    learnt = [label for label in row["labels"] if label != IGNORED]
    assert tokenizer.decode(learnt) == "".join(f"{each.text}<|im_end|>" for each in tree.nodes)


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    """What `sft` makes of the tiny recipe."""
    out = tmp_path_factory.mktemp("sft") / "run"
    assert main(["sft", "tiny:recipe", "--out", str(out), "--probe", "3", "--quiet"]) == 0
    return out


@pytest.mark.slow
def test_it_makes_the_cold_start_of_the_run_bit_for_bit_and_probes_it(taught, capsys):
    own = tiny.finished()[0]
    assert same(taught / "checkpoints" / "cold-start", own.checkpoints / "cold-start")
    assert (taught / "demonstrations.jsonl.gz").read_bytes() == own.demonstrations.read_bytes()
    probe = json.loads((taught / "probe.json").read_text())
    assert (probe["asked"], probe["tasks"], probe["level"], probe["split"]) == (3, 3, "L0", "dev")
    assert probe["success"] == probe["wins"] / 3
    assert (probe["low"], probe["high"]) == wilson(probe["wins"], 3)

    before = {path: path.stat().st_mtime_ns for path in taught.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["sft", "tiny:recipe", "--out", str(taught), "--probe", "3", "--quiet"]) == 0
    assert {path: path.stat().st_mtime_ns for path in taught.rglob("*") if path.is_file()} == before
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"3 development tasks of L0: success {probe['success']:.3f} ({probe['wins']}/3, 95 % ")
    assert f"{1 - probe['malformed_ratio']:.1%} of the steps well-formed, {probe['explore_ratio']:.1%} explore" in first
    assert last.endswith(f"continue with: spark-rl train --resume {taught}")


@pytest.mark.slow
def test_what_it_makes_is_a_run(taught, capsys, tmp_path):
    words = ["--level", "L0", "--tasks", "2", "--checkpoint", "cold-start"]
    assert main(["eval", str(taught), *words, "--quiet"]) == 0
    assert "/2 |" in capsys.readouterr().out
    assert main(["show", str(taught)]) == 0
    assert main(["play", str(taught), "--tree.horizon", "2", "--quiet"]) == 0
    assert main(["merge", str(taught), "--out", str(tmp_path / "model"), "--quiet"]) == 0
    assert same(tmp_path / "model", taught / "checkpoints" / "cold-start")


@pytest.mark.slow
def test_it_makes_the_quickstarts_cold_start_bit_for_bit(tmp_path):
    recipe = quickstart()
    few = replace(recipe, cold_start=replace(recipe.cold_start, demonstrations=24), threads=1, iterations=0)
    own = Run.create(tmp_path / "train", replace(few, evaluation=replace(few.evaluation, levels=())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        train(own, tiny.Log())
    out = tmp_path / "sft"
    words = ["--cold-start.demonstrations", "24", "--threads", "1", "--probe", "0", "--quiet"]
    assert main(["sft", "quickstart", "--out", str(out), *words]) == 0
    assert same(out / "checkpoints" / "cold-start", own.checkpoints / "cold-start")
    assert not (out / "probe.json").exists()


@pytest.mark.slow
def test_a_file_says_what_is_played_and_the_paper_says_the_rest(taught, tmp_path):
    out, file = tmp_path / "run", taught / "demonstrations.jsonl.gz"
    model = taught / "checkpoints" / "cold-start"
    words = ["--out", str(out), "--probe", "0", "--threads", "1", "--weights.lora-rank", "4", "--quiet"]
    assert main(["sft", "--data", str(file), "--model", str(model), *words]) == 0
    recipe = Run.open(out).recipe
    assert (recipe.env, recipe.level, recipe.prompt) == (tiny.WORLD, "L0", tiny.RECIPE.prompt)
    assert recipe.cold_start == ColdStart(demonstrations=60, data=str(file))
    said = recipe.cold_start
    assert (said.learning_rate, said.epochs, said.batch, said.warmup) == (1e-5, 3, 32, 0.1)
    assert recipe.tree.horizon == 30
    assert not same(out / "checkpoints" / "cold-start", model)
    assert not (out / "checkpoints" / "cold-start" / "adapter_config.json").exists(), "adapters are merged"


def test_what_is_missing_or_wrong_is_one_sentence(capsys, tmp_path):
    assert "needs a recipe" in mend(capsys, "sft", "--probe", "3")
    assert "needs a recipe" in mend(capsys, "sft", "--data", "file.jsonl")
    assert "is no readable demonstration file" in mend(capsys, "sft", "--data", tmp_path / "nowhere", "--model", "m")
    assert "probe is -1" in mend(capsys, "sft", "tiny:recipe", "--probe", "-1")
    assert "nothing to learn from" in mend(capsys, "sft", "tiny:recipe", "--cold-start.demonstrations", "0")
    Run.create(tmp_path / "run", tiny.RECIPE)
    said = mend(capsys, "sft", "tiny:recipe", "--out", tmp_path / "run", "--seed", "5")
    assert "holds a run with other settings: give another --out" in said


def test_a_file_that_does_not_say_how_to_play_is_refused(capsys, tmp_path):
    shown = asyncio.run(collect(tiny.WORLD, 2, level="L0", horizon=30, prompt=tiny.RECIPE.prompt))
    file = tmp_path / "mixed.jsonl"
    other = replace(shown[1], origin=replace(shown[1].origin, world=json.dumps(encode(replace(tiny.WORLD, objects=7)))))
    save([shown[0], other], file, tiny.RECIPE.prompt)
    assert '2 values in its column "world"' in mend(capsys, "sft", "--data", file, "--model", "m")
    save([replace(one, origin=replace(one.origin, world="")) for one in shown], file, tiny.RECIPE.prompt)
    assert 'nothing in its column "world"' in mend(capsys, "sft", "--data", file, "--model", "m")
    lost = [replace(one, tree=replace(one.tree, nodes=one.tree.nodes[:1])) for one in shown]
    save(lost, file, tiny.RECIPE.prompt)
    assert not any(one.won for one in load(file))
    assert "holds no won trajectory" in mend(capsys, "sft", "--data", file, "--model", "m")
