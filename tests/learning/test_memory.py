"""The estimate against what small models really hold, hand-computed numbers, and what is said when a run does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from spark_rl.cli import main
from spark_rl.config.options import parse_recipe
from spark_rl.config.recipe import Optimizer, Recipe
from spark_rl.engines.local.cache import Layout
from spark_rl.engines.vllm.settings import Vllm
from spark_rl.errors import UsageError
from spark_rl.learning import memory
from spark_rl.learning.memory import Shape
from spark_rl.learning.optimizer import adamw
from spark_rl.learning.update import recomputing
from spark_rl.models import adapters
from spark_rl.models.logprobs import token_logprobs
from spark_rl.models.scratch import ScratchModel
from spark_rl.models.tree_attention import ancestry, attending, depths
from spark_rl.models.weights import Weights
from spark_rl.objective.loss import Loss
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.recipes import load_recipe

QWEN: dict[str, Any] = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
ROWS, LENGTH, ANSWER = 4, 64, 16


def recipe(model: str, **changes: Any) -> Recipe:
    return replace(tiny.RECIPE, model=model, **changes)


def small(kind: str, dtype: torch.dtype, folder) -> Any:
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 500,
    }
    if kind == "qwen":
        made: Any = Qwen2ForCausalLM(Qwen2Config(**size, num_key_value_heads=2))
    else:
        made = LlamaForCausalLM(LlamaConfig(**size, num_key_value_heads=4))
    made = made.to(dtype).eval()
    made.save_pretrained(folder)
    return made


def kept(model: Any, checkpointing: bool, ends: np.ndarray | None = None) -> int:
    """Bytes that one micro-batch keeps for its backward pass, weights aside. With `ends` it is a prefix tree."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage
        return x

    tokens, options = torch.randint(0, 400, (ROWS, LENGTH)), {}
    if ends is not None:
        tokens = torch.randint(0, 400, (1, len(ends)))
        options = {"position_ids": torch.as_tensor(depths(ends))[None], "tree": ancestry(ends, torch.device("cpu"))}
    with (
        attending(model),
        recomputing(model, checkpointing),
        torch.autograd.graph.saved_tensors_hooks(note, lambda x: x),
    ):
        output = model.model(input_ids=tokens, use_cache=False, **options).last_hidden_state
        output.float().sum().backward()
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["qwen", "llama"])
def test_weights_optimiser_cache_and_activations_are_as_estimated(kind, dtype, tmp_path):
    model = small(kind, dtype, tmp_path)
    settings = recipe(str(tmp_path), optimizer=Optimizer(token_budget=ROWS * LENGTH))
    shape = memory.shape(settings)
    found = memory.need(settings, shape)
    assert found.weights == found.reference == sum(p.nbytes for p in model.parameters())
    assert shape.cached * shape.bytes == Layout.of(model).bytes
    plain = kept(model, checkpointing=False)
    assert 0.67 < memory.activation_bytes(shape, ROWS * LENGTH, Weights()) / plain < 1.5
    model.zero_grad()

    optimizer = adamw(model, lr=1e-6)
    (model(torch.randint(0, 400, (1, 9)), use_cache=False).logits.float() ** 2).sum().backward()
    held = sum(p.nbytes + p.grad.nbytes for group in optimizer.param_groups for p in group["params"])
    if dtype == torch.float32:
        held -= found.weights  # there are no copies: the optimiser works on the weights themselves
    optimizer.step()
    held += sum(x.nbytes for state in optimizer.state.values() for x in state.values() if x.ndim)
    assert found.optimizer == held


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trees_keep_what_is_estimated(dtype, tmp_path):
    """Forty branches of fifty tokens behind five hundred that they share: most of the blocks' keys are copies."""
    model = small("llama", dtype, tmp_path)
    starts = 500 + 50 * np.arange(40)
    ends = np.concatenate([np.full(500, 2500), np.repeat(starts + 50, 50)])
    shape = memory.shape(recipe(str(tmp_path)))
    besides = memory.tree_bytes(shape, 2500, 550, Weights())
    estimate = memory.activation_bytes(shape, 2500, Weights()) + besides
    assert 0.67 < estimate / kept(model, False, ends) < 1.5
    # Layers that are computed twice keep the copies one layer at a time; the masks stay.
    masks = 2500 * 550 * (1 + shape.bytes)
    assert memory.tree_bytes(shape, 2500, 550, Weights(checkpointing=True)) == pytest.approx(
        (besides - masks) / 3 + masks, abs=2
    )


def test_in_a_tree_all_leaves_may_share_their_prompt():
    """10,000 tokens of prompts of 800 and answers of 100: 8 answers beside each prompt, or one."""
    settings = replace(
        tiny.RECIPE,
        model="unused",
        optimizer=Optimizer(token_budget=10_000),
        tree=replace(tiny.RECIPE.tree, budget=8),
        prompt=replace(tiny.RECIPE.prompt, context=Window(), limit=800),
        sampling=replace(tiny.RECIPE.sampling, max_tokens=100),
    )
    rows = replace(settings, optimizer=replace(settings.optimizer, packing="rows"))
    for each, answers in ((settings, 5000), (rows, 1111)):
        assert memory.need(each, BIG).logits == memory._logit_bytes(BIG, answers, 2)
    besides = memory.tree_bytes(BIG, 10_000, 900, settings.weights)
    assert memory.need(settings, BIG).activations - memory.need(rows, BIG).activations == besides > 0


def test_a_row_that_grows_by_turns_is_half_the_agents():
    for horizon, answers in ((20, 5000), (1, 1111)):  # after one step no answer is a part of a prompt
        settings = replace(
            tiny.RECIPE,
            model="unused",
            optimizer=Optimizer(token_budget=10_000, packing="rows"),
            tree=replace(tiny.RECIPE.tree, horizon=horizon),
            prompt=replace(tiny.RECIPE.prompt, context=Transcript(), limit=800),
            sampling=replace(tiny.RECIPE.sampling, max_tokens=100),
        )
        assert memory.need(settings, BIG).logits == memory._logit_bytes(BIG, answers, 2)


def test_norms_of_a_cold_start_compute_in_32_bits(tmp_path):
    model = small("llama", torch.float32, tmp_path)
    shape = replace(memory.shape(recipe(str(tmp_path))), bytes=2)
    with torch.autocast("cpu", torch.bfloat16):
        plain = kept(model, checkpointing=False)
    assert 0.67 < memory.activation_bytes(shape, ROWS * LENGTH, Weights(), autocast=True) / plain < 1.5
    more = memory.activation_bytes(shape, 1, Weights(), autocast=True) - memory.activation_bytes(shape, 1, Weights())
    assert more == 8 * shape.hidden * shape.layers


def test_recomputing_keeps_the_layers_inputs_alone(tmp_path):
    model = small("qwen", torch.float32, tmp_path)
    shape = memory.shape(recipe(str(tmp_path)))
    inputs = shape.layers * ROWS * LENGTH * shape.hidden * 4
    # The final norm and the embedding's output come on top; one layer more is needed at a time, in the backward pass.
    assert inputs <= kept(model, checkpointing=True) <= 2.5 * inputs
    layer = memory.activation_bytes(replace(shape, layers=1), ROWS * LENGTH, Weights())
    assert memory.activation_bytes(shape, ROWS * LENGTH, Weights(checkpointing=True)) == inputs + layer


def test_adapters_are_counted_as_they_are_made(tmp_path):
    model = small("qwen", torch.bfloat16, tmp_path)
    settings = recipe(str(tmp_path), weights=Weights(lora_rank=5))
    found = memory.need(settings, memory.shape(settings))
    adapters.add(model, settings.weights)
    assert found.weights == sum(p.nbytes for p in model.parameters())
    assert found.optimizer == 3 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    assert found.reference == 0


def test_logits_are_those_of_completions():
    """Two of the model's precision, and their 32-bit part, by hand: 10 tokens x 1000 entries."""
    assert memory._logit_bytes(replace(BIG, vocabulary=1000), 10, 2) == 2 * 2 * 10_000 + 16 * 10_000


BIG = Shape(1_543_714_304, ((1536, 1536),), 28, 1536, 8960, 2 * 28 * 2 * 128, 151936, 2)


def test_the_measured_peak_of_logits_is_below_the_estimate(tmp_path):
    model = small("qwen", torch.float32, tmp_path)
    shape = memory.shape(recipe(str(tmp_path)))
    tokens, sampled = torch.randint(0, 400, (ROWS, LENGTH)), torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    sampled[:, -ANSWER:] = True
    held: dict[int, int] = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] == shape.vocabulary and x.shape[0] != shape.vocabulary:
            held[x.untyped_storage().data_ptr()] = x.nbytes
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        token_logprobs(model, tokens, sampled, 1.0, with_entropy=True)[0].sum().backward()
    assert 0 < sum(held.values()) <= memory._logit_bytes(shape, ROWS * ANSWER, 4)


def test_the_papers_model_by_hand(tmp_path):
    Qwen2Config(**QWEN, dtype="bfloat16").save_pretrained(tmp_path)
    settings = replace(load_recipe("alfworld-qwen-1-5b"), model=str(tmp_path), weights=Weights(device="cuda"))
    shape = memory.shape(settings)
    assert (shape.parameters, shape.cached * shape.bytes, shape.bytes) == (1_543_714_304, 28_672, 2)
    found = memory.need(settings, shape)
    # 2 bytes of weight; gradient, copy and two moments of 4; the reference of 2.
    assert (found.weights, found.optimizer, found.reference) == tuple(n * 1_543_714_304 for n in (2, 16, 2))
    # vLLM's own weights, libraries and contexts; it sleeps while the learner works.
    assert (found.engine, found.cache, found.stays) == (2 * 1_543_714_304 + 2 * 10**9, 0, 0)
    assert found.grow == found.engine + found.batch
    assert found.total == max(
        found.weights + found.optimizer + found.reference + max(found.grow, found.update), found.weights + found.start
    )
    lora = replace(settings, weights=Weights(lora_rank=32))
    # A rank: q and o 2 x (1536 + 1536), k and v 2 x (1536 + 256), gate, up and down 3 x (1536 + 8960).
    assert memory.need(lora, shape).optimizer == 12 * 28 * 32 * (6144 + 3584 + 31488)


@pytest.mark.parametrize(
    ("engine", "moments"),
    [
        (Vllm(cache_gb=0.0), ("grow",)),
        (Vllm(cache_gb=0.0, sleep=0), ("grow", "update")),
        (Vllm(cache_gb=0.0, device="1"), ()),
    ],
)
def test_keys_and_values_of_vllm_get_what_the_learner_leaves(engine, moments):
    settings = replace(
        load_recipe("alfworld-qwen-1-5b"),
        model="unused",
        weights=Weights(device="cuda", checkpointing=True),
        optimizer=Optimizer(token_budget=4096),
        engine=engine,
    )
    device = ("cuda", 80 * 10**9)
    placed = memory.fitted(settings, BIG, available=device)
    found = memory.need(placed, BIG)
    learner = found.weights + found.optimizer + found.reference
    used = learner + max(getattr(found, moment) for moment in moments) if moments else found.apart
    assert 0 <= 0.9 * device[1] - used < 0.11 * 2**30, "a tenth of a gibibyte is left at most"
    assert memory.check(placed, BIG, available=device).total <= 0.9 * device[1]
    assert memory.fitted(replace(settings, engine=Vllm(cache_gb=3.0)), BIG, available=device).engine.memory() == 3 * 2**30
    tight = memory.fitted(settings, BIG, available=("cuda", 10**9))
    assert tight.engine.memory() == 2**29, "never nothing: the check of memory says what is missing"


# -- what is said -----------------------------------------------------------------------------------------------------


def test_the_first_change_that_suffices_is_named():
    settings = replace(load_recipe("alfworld-qwen-1-5b"), model="unused", weights=Weights())
    whole = memory.need(settings, BIG).total
    assert memory.check(settings, BIG, available=("cuda", int(whole / 0.89))).total == whole
    said = []
    for size in (int(whole * 1.05), 70 * 10**9, 24 * 10**9):
        with pytest.raises(UsageError) as caught:
            memory.check(settings, BIG, available=("cuda", size))
        said.append(str(caught.value))
    assert "--weights.checkpointing" in said[0]
    assert "lora" not in said[0]
    assert "--weights.lora-rank 32" in said[2]
    assert all("\n" not in sentence and "GB" in sentence for sentence in said)
    with pytest.raises(UsageError, match="smaller model"):
        memory.check(settings, BIG, available=("cuda", 10**9))


@pytest.mark.parametrize("size", [90, 70, 45, 30, 14])
def test_what_is_advised_fits_when_it_is_typed(size):
    settings, device = replace(load_recipe("alfworld-qwen-1-5b"), model="unused", weights=Weights()), ("cuda", size * 10**9)
    with pytest.raises(UsageError) as caught:
        memory.check(settings, BIG, available=device)
    words = str(caught.value).partition(": set ")[2].partition(", and it needs")[0].replace(memory.INSTEAD, "").split()
    memory.check(parse_recipe(settings, words, "train"), BIG, available=device)


def test_a_reference_is_needed_for_the_divergence_alone():
    settings = replace(tiny.RECIPE, model="unused")
    assert memory.need(settings, BIG).reference > 0
    assert memory.need(replace(settings, loss=Loss(kl=0.0)), BIG).reference == 0


def test_a_run_of_no_iterations_has_no_update():
    found = memory.need(replace(tiny.RECIPE, iterations=0), BIG)
    assert (found.optimizer, found.reference, found.update) == (0, 0, 0)
    whole = memory.need(tiny.RECIPE, BIG)
    assert (found.weights, found.start, found.grow) == (whole.weights, whole.start, whole.grow)


def test_a_dry_run_prints_fields_and_memory_and_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tiny:recipe", "--dry-run", "--tree.budget", "6", "--weights.lora-rank", "2"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert lines["tree.budget"] == ["6"]
    assert lines["weights.lora_rank"] == ["2"]
    assert lines["branching"] == ["explore_tag"]
    assert "gradients and optimiser" in out
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_what_does_not_fit_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    sizes = {"num_hidden_layers": 80, "hidden_size": 2**14, "intermediate_size": 2**16, "num_attention_heads": 16}
    large: dict[str, Any] = QWEN | sizes
    Qwen2Config(**large).save_pretrained(tmp_path)
    assert main(["train", "tiny:recipe", "--dry-run", "--model", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "needs" in said[0]
    assert "smaller model" in said[0]


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="no-such"):
        memory.shape(recipe("no-such/model"))


def test_a_model_from_nothing_needs_no_files():
    fresh = ScratchModel(vocabulary=300, hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64)
    shape = memory.shape(replace(tiny.RECIPE, model=fresh))
    assert (shape.vocabulary, shape.cached, shape.bytes) == (300, 32, 4)
