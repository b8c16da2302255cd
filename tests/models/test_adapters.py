"""Adapters change nothing until they are trained, can be switched off to the bit, and are kept apart from their model."""

from __future__ import annotations

import builtins
import json
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from spark_rl.config.codec import decode, encode
from spark_rl.errors import MissingExtra, StorageError, UsageError
from spark_rl.learning.optimizer import adamw, trained
from spark_rl.learning.update import recomputing
from spark_rl.models import adapters
from spark_rl.models.load import load_model
from spark_rl.models.logprobs import token_logprobs
from spark_rl.models.weights import Weights

LORA = Weights(lora_rank=3)
IDS = torch.tensor([[5, 9, 2, 7, 1, 3, 3, 8]])


def model(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    made: Any = Qwen2ForCausalLM(Qwen2Config(**size, num_key_value_heads=2, bos_token_id=None, eos_token_id=1))
    return made.to(dtype).eval()


def logits(of: Any) -> torch.Tensor:
    with torch.no_grad():
        return of(IDS, use_cache=False).logits


def learn(of: Any, steps: int = 3, lr: float = 1e-2) -> None:
    optimizer = adamw(of, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        of(IDS, labels=IDS).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_off_is_the_model_before_and_the_rest_stands_still(dtype):
    plain = model(dtype)
    before, weights = logits(plain), {name: w.clone() for name, w in plain.state_dict().items()}
    adapted = adapters.add(plain, LORA)
    assert adapted is plain
    assert torch.equal(logits(adapted), before), "B is zero"
    assert {p.dtype for p in trained(adamw(adapted, lr=1e-3))} == {torch.float32}
    learn(adapted)
    after = logits(adapted)
    assert not torch.equal(after, before)
    with adapters.off(adapted) as reference:
        assert torch.equal(logits(reference), before)
    assert torch.equal(logits(adapted), after)
    assert all(p.requires_grad == ("lora_" in name) for name, p in adapted.named_parameters())
    assert all(
        torch.equal(w, weights[name.replace(".base_layer", "")])
        for name, w in adapted.state_dict().items()
        if "lora_" not in name
    )


def test_every_inner_matrix_gets_adapters_and_the_output_layer_none():
    # 2 layers, rank 3: q 32+32, k and v 32+16, o 32+32, gate and up 32+64, down 64+32 numbers a rank.
    adapted = adapters.add(model(), LORA)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == 2 * 3 * (64 + 2 * 48 + 64 + 3 * 96)


def test_the_first_adapters_depend_on_the_seed_alone():
    first, second, third = (adapters.add(model(), LORA, seed=seed).state_dict() for seed in (1, 1, 2))
    name = "model.layers.1.mlp.up_proj.lora_A.default.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], third[name])


def test_a_folder_holds_adapters_alone_and_loads_beside_its_cold_start_wherever_that_is(tmp_path):
    cold = tmp_path / "run" / "cold-start"
    model().save_pretrained(cold)
    adapted = adapters.add(load_model(cold), LORA)
    learn(adapted)
    (tmp_path / "run" / "000001").mkdir()
    adapters.save(adapted, tmp_path / "run" / "000001")
    assert not (tmp_path / "run" / "000001" / "config.json").exists()
    assert json.loads((tmp_path / "run" / "000001" / "adapter_config.json").read_text())["r"] == 3
    (tmp_path / "run").rename(tmp_path / "moved")
    again = load_model(tmp_path / "moved" / "000001")
    assert torch.equal(logits(again), logits(adapted))
    assert [p.numel() for p in again.parameters() if p.requires_grad] == [
        p.numel() for p in adapted.parameters() if p.requires_grad
    ], "ready to be trained on"
    (tmp_path / "moved" / "000001" / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(StorageError, match="000001"):
        load_model(tmp_path / "moved" / "000001")


def test_merging_keeps_all_in_32_bits_and_says_what_16_bits_lose():
    adapted = adapters.add(model(), LORA)
    learn(adapted)
    before = logits(adapted)
    assert adapters.merge(adapted) == pytest.approx(1.0, abs=1e-3)
    assert torch.allclose(logits(adapted), before, atol=1e-5)
    assert set(adapted.state_dict()) == set(model().state_dict())
    small = adapters.add(model(torch.bfloat16), LORA)
    learn(small, steps=1, lr=1e-6)
    assert adapters.merge(small) < 0.5, "a step of 1e-6 is below the last digit of nearly all weights"


@pytest.mark.parametrize("lora", [False, True])
def test_recomputing_gives_the_same_gradients(lora):
    plain = adapters.add(model(), LORA) if lora else model()
    if lora:
        learn(plain)
    sampled = torch.zeros_like(IDS, dtype=torch.bool)
    sampled[:, 3:] = True

    def gradients(wanted: bool) -> list[torch.Tensor]:
        plain.zero_grad(set_to_none=True)
        with recomputing(plain, wanted):
            token_logprobs(plain, IDS, sampled, 1.0)[0].sum().backward()
        return [p.grad.clone() for p in plain.parameters() if p.grad is not None]

    once, twice = gradients(False), gradients(True)
    assert len(once) == len(twice) > 0
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert "forward" not in vars(plain.model.layers[0])


def test_settings_are_checked_and_older_recipes_have_none():
    wrong: list[dict[str, Any]] = [{"lora_rank": -1}, {"lora_alpha": -1.0}, {"dtype": "float16"}, {"device": "mps"}]
    for bad in wrong:
        with pytest.raises(UsageError, match=f"weights.{next(iter(bad))}"):
            Weights(**bad)
    from tiny import RECIPE

    saved = encode(RECIPE)
    del saved["weights"]
    assert decode(saved) == RECIPE
    assert Weights(lora_rank=8).scale == 16


def test_a_missing_peft_names_the_command(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "peft":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r'pip install "spark-rl\[sft\]"'):
        adapters.add(model(), LORA)
