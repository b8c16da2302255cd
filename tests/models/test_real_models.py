"""A model with Qwen2.5's vocabulary, template and precision, from its directory to an evaluation: all weights; adapters."""

from __future__ import annotations

import asyncio
import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qwen
import tiny
import torch

from spark_rl import load_forest
from spark_rl.cli import main
from spark_rl.config.recipe import Evaluation, Keep, Recipe
from spark_rl.data.demonstrations import collect, tokenize
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.learning.batch import pack, packed_sequences
from spark_rl.learning.packing import Passes
from spark_rl.learning.trainer import train
from spark_rl.learning.update import trainer_logprobs
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.models.logprobs import token_logprobs
from spark_rl.models.weights import Weights
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.runs import checkpoints
from spark_rl.runs.run import Run
from spark_rl.types import Credit, Sampling

PROMPT = Prompt(Window(2), limit=1500)


def recipe(weights: Weights, **changes: Any) -> Recipe:
    """One step of the cold start, two iterations; penalties give a gradient, for nobody wins with random weights."""
    given: dict[str, Any] = {
        "name": "qwen-shaped",
        "model": str(qwen.folder()),
        "weights": weights,
        "iterations": 2,
        "tree": replace(tiny.RECIPE.tree, budget=2, roots=2, horizon=4),
        "prompt": PROMPT,
        "sampling": Sampling(temperature=1.0, max_tokens=6),
        "optimizer": replace(
            tiny.RECIPE.optimizer, learning_rate=1e-4, minibatches=1, token_budget=4096, without_signal="keep"
        ),
        "rewards": replace(tiny.RECIPE.rewards, inside=False),
        "cold_start": replace(
            tiny.RECIPE.cold_start,
            demonstrations=1,
            epochs=1,
            batch=32,
            learning_rate=1e-3,
            warmup=0.0,
            prompt_weight=0.0,
            optimizer="adamw",
        ),
        "evaluation": Evaluation(levels=("L0",), temperature=0.0, every=0, batch=5),
        "keep": Keep(forests=0, checkpoints=9, every=1),
    }
    return replace(tiny.RECIPE, **given | changes)


def run_through(run: Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        train(run, tiny.Log())


@cache
def finished(lora: int) -> Run:
    """A run from the model directory to the evaluation after; to be read only."""
    run = Run.create(qwen.scratch() / f"run-{lora}", recipe(Weights(lora_rank=lora, checkpointing=bool(lora))))
    run_through(run)
    return run


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).state_dict()


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_are_those_of_the_models_own_template():
    _, tokenizer = qwen.plain(qwen.folder())
    encoder = ChatEncoder(load_tokenizer(qwen.folder()))
    assert encoder.end == qwen.END
    messages = [{"role": "user", "content": "You see a fridge 1.\n\nTask: heat  a tomato "}]
    expected = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)["input_ids"]
    assert list(encoder.conversation(messages)) == list(expected)
    assert tokenizer.decode(expected).startswith("<|im_start|>system\n")


@pytest.mark.parametrize("prompt", [PROMPT, Prompt(Transcript(), limit=3000)])
def test_demonstrations_and_rollouts_have_the_ids_of_the_template_and_end_their_turns_with_it(prompt):
    _, tokenizer = qwen.plain(qwen.folder())
    encoder = ChatEncoder(load_tokenizer(qwen.folder()))
    (shown,) = asyncio.run(collect(tiny.WORLD, 1, level="L0", horizon=12, prompt=prompt))
    tree = tokenize(shown.tree, prompt, encoder)
    for number, node in enumerate(tree.nodes):
        messages = prompt.render(tree, node.parent, encoder).messages
        whole = [*messages, {"role": "assistant", "content": node.text}]
        text = tokenizer.apply_chat_template(whole, tokenize=False)
        assert tokenizer.decode([*node.prompt, *node.completion]) + "\n" == text, number
    row = packed_sequences([tree])[0]
    assert row.tokens[np.flatnonzero(row.sampled)].max() == qwen.END


# -- memory of the vocabulary -------------------------------------------------------------------------------------------


def test_only_positions_of_completions_reach_the_output_layer():
    model = load_model(qwen.folder())
    tokens = torch.randint(0, 400, (2, 300))
    sampled = torch.zeros(2, 300, dtype=torch.bool)
    sampled[:, 290:] = True
    largest = 0

    def note(x: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        logprobs, entropy = token_logprobs(model, tokens, sampled, 1.0, with_entropy=True)
        (logprobs.sum() + entropy.sum()).backward()  # type: ignore[union-attr]
    weights = qwen.VOCABULARY * model.config.hidden_size
    assert largest <= max(weights, 20 * qwen.VOCABULARY)


# -- a whole run ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
def test_cold_start_iterations_checkpoints_and_evaluation(lora):
    run = finished(lora)
    base, cold = (state(folder) for folder in (qwen.folder(), run.checkpoints / "cold-start"))
    assert {w.dtype for w in cold.values()} == {torch.bfloat16}
    moved = {name for name, w in cold.items() if not torch.equal(w, base[name])}
    matrices = {name for name, w in base.items() if w.ndim == 2 and "embed" not in name and "lm_head" not in name}
    assert matrices <= moved
    assert lora == 0 or moved == matrices, "adapters leave embeddings, norms and biases alone"
    assert [row["iteration"] for row in run.metrics()] == [1, 2]
    for row in run.metrics():
        assert row["update_sampled_tokens"] > 0
        assert row["update_reference_kl"] >= 0
    assert run.metrics()[0]["update_reference_kl"] < 1e-3, "before the first step the policy is its reference"
    assert run.evaluations()["after"]["L0"].tasks == 5
    files = {path.name for path in (run.checkpoints / "000002").iterdir()}
    assert {"adapter_model.safetensors" if lora else "model.safetensors", "training.pt", "tokenizer.json"} <= files
    first, last = (state(run.checkpoints / name) for name in ("000001", "000002"))
    assert any(not torch.equal(w, first[name]) for name, w in last.items())


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
def test_what_was_sampled_is_what_the_trainer_computes(lora, tmp_path):
    """In 32 bits, with adapters that have learnt: the rollout's log-probabilities are the trainer's to 1e-4."""
    folder = finished(lora).checkpoints / "000002"
    model, tokenizer = load_model(folder, dtype="float32"), load_tokenizer(folder)
    settings = recipe(Weights())
    executor = InProcess(settings.env, LocalEngine(model, tokenizer, cache_bytes=5 * 10**7))
    growth = replace(settings.growth, sampling=Sampling(temperature=0.7, max_tokens=8))
    forest = asyncio.run(executor.grow(settings.env.tasks("L0", "train")[:2], growth, seed=1, iteration=1))
    zeros = [Credit(*((0.0,) * len(tree.nodes) for _ in range(3))) for tree in forest]
    batch = pack(forest.trees, zeros)
    found = trainer_logprobs(model, batch, Passes(0.7, 4096)).flat()
    assert len(found.old) > 20
    assert np.abs(found.old - found.sampling).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
def test_going_on_after_an_interruption_gives_the_same_numbers(lora, tmp_path):
    """Also without recomputing layers, with which the run of adapters was made."""
    whole = finished(lora)
    run = Run.create(tmp_path / "run", replace(whole.recipe, weights=Weights(lora_rank=lora)))
    with pytest.raises(KeyboardInterrupt):
        train(run, tiny.Log(stop_after=1))
    run_through(Run.open(run.directory))
    assert tiny.untimed(run.metrics()) == tiny.untimed(whole.metrics())
    assert load_forest(run.directory, 2) == load_forest(whole.directory, 2)
    mine, other = (torch.load(r.checkpoints / "000002" / checkpoints.TRAINING, weights_only=True) for r in (run, whole))
    for one, two in zip(mine["optimizer"]["state"].values(), other["optimizer"]["state"].values(), strict=True):
        assert torch.equal(one["exp_avg"], two["exp_avg"])
    copies = [saved["optimizer"].get("copies", []) for saved in (mine, other)]
    assert len(copies[0]) == (0 if lora else len(list(load_model(qwen.folder()).parameters())))
    assert all(torch.equal(one, two) for one, two in zip(*copies, strict=True))


@pytest.mark.slow
def test_adapters_are_saved_in_the_librarys_own_form():
    settings = json.loads((finished(4).checkpoints / "000002" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 4, 8)
    from peft import PeftModel

    warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        base, _ = qwen.plain(finished(4).checkpoints / "cold-start")
        theirs = PeftModel.from_pretrained(base, finished(4).checkpoints / "000002").eval()(ids).logits
        ours = load_model(finished(4).checkpoints / "000002")(ids).logits
    assert torch.equal(theirs, ours)


# -- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
def test_a_merged_model_loads_by_itself_says_what_it_is_and_plays(lora, tmp_path, capsys):
    run, out = finished(lora), tmp_path / "model"
    assert main(["merge", str(run.directory), "--out", str(out), "--dtype", "float32", "--quiet"]) == 0
    assert {path.name for path in out.iterdir()} >= {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert not (out / "training.pt").exists()
    assert not (out / "adapter_config.json").exists()
    (merged, tokenizer), ids = qwen.plain(out), torch.arange(20, 60)[None]
    assert merged.dtype == torch.float32
    assert len(tokenizer) == qwen.LENGTH
    with torch.no_grad():
        expected = load_model(run.checkpoints / "000002", dtype="float32")(ids).logits
        assert torch.allclose(merged.eval()(ids).logits, expected, atol=1e-4)

    text = (out / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert ("adapters of rank 4, merged" if lora else "all weights") in text
    result = run.evaluations()["after"]["L0"]
    assert f"{result.wins}/{result.tasks}" in text
    assert str(tmp_path) not in text
    assert str(qwen.scratch()) not in text

    capsys.readouterr()
    played = [
        "--recipe",
        "tiny:recipe",
        "--prompt.limit",
        "1500",
        "--tree.horizon",
        "2",
        "--max-tokens",
        "8",
        "--threads",
        "1",
    ]
    assert main(["play", str(out), *played, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Task: ")
    assert "Not solved in 2 steps." in shown
    assert main(["play", str(run.directory), "--tree.horizon", "1", "--checkpoint", "cold-start", "--quiet"]) == 0
    assert main(["merge", str(run.directory), "--out", str(out), "--quiet"]) == 2
    assert "exists already" in capsys.readouterr().err
