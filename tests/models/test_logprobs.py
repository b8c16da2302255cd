"""Log-probabilities, entropies and their gradients against the plain formula and its gradient."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM, Qwen2Config, Qwen2ForCausalLM

from spark_rl.models import logprobs as logprobs_module
from spark_rl.models.logprobs import Predictions, predicted_logprobs, token_logprobs

SIZE: dict[str, Any] = {
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


ARCHITECTURES = [
    lambda: Qwen2ForCausalLM(Qwen2Config(**SIZE, tie_word_embeddings=True)),
    lambda: Gemma2ForCausalLM(Gemma2Config(**SIZE, head_dim=4, final_logit_softcapping=0.01, pad_token_id=0)),
    lambda: GraniteForCausalLM(GraniteConfig(**SIZE, logits_scaling=0.05)),
]


@pytest.mark.parametrize("build", ARCHITECTURES, ids=["plain", "soft cap", "scaled"])
@pytest.mark.parametrize("cells", [2**25, 40])  # in one piece, and in pieces of two tokens
def test_log_probabilities_are_those_of_each_row_alone(build, cells, monkeypatch):
    monkeypatch.setattr(logprobs_module, "LOGIT_CELLS", cells)
    torch.manual_seed(0)
    model = build().double().eval()
    rows = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
    tokens = torch.tensor([rows[0], rows[1] + [0] * 3])
    sampled = torch.tensor([[0, 0, 1, 0, 1, 1], [0, 1, 1, 0, 0, 0]]).bool()
    logprobs, entropy = token_logprobs(model, tokens, sampled, temperature=0.7, with_entropy=True)
    expected, uncertainty = [], []
    for row, marks in zip(rows, sampled.tolist(), strict=True):
        table = (model(torch.tensor([row])).logits[0] / 0.7).log_softmax(-1)
        for place in (place for place, mark in enumerate(marks) if mark):
            expected.append(table[place - 1, row[place]])
            uncertainty.append(torch.distributions.Categorical(logits=table[place - 1]).entropy())
    assert entropy is not None
    torch.testing.assert_close(logprobs, torch.stack(expected))
    torch.testing.assert_close(entropy, torch.stack(uncertainty))
    assert logprobs.std() > 0.01
    embedding = model.get_input_embeddings().weight
    (gradient,) = torch.autograd.grad((logprobs + entropy).sum(), embedding, retain_graph=True)
    (direct,) = torch.autograd.grad((torch.stack(expected) + torch.stack(uncertainty)).sum(), embedding)
    torch.testing.assert_close(gradient, direct)


def test_greedy_counts_as_temperature_one_and_half_precision_is_scored_in_32_bits():
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZE)).bfloat16().eval()
    tokens, sampled = torch.tensor([[1, 2, 3]]), torch.tensor([[False, True, True]])
    greedy, entropy = token_logprobs(model, tokens, sampled, temperature=0.0)
    plain, _ = token_logprobs(model, tokens, sampled, temperature=1.0)
    assert greedy.dtype == torch.float32
    assert entropy is None
    assert torch.equal(greedy, plain)


def giving(logits: torch.Tensor) -> Any:
    """A model whose logits are given, [positions, vocabulary]."""
    model: Any = torch.nn.Module()
    model.get_output_embeddings = lambda: None
    model.forward = lambda **_: SimpleNamespace(logits=logits[None])
    return model


PREDICTIONS = Predictions(torch.tensor([4, 0, 2]), torch.tensor([2, 0, 2, 2, 1]), torch.tensor([1, 3, 1, 6, 0]))
"""Three of five positions predict five tokens; the last of them predicts three, two of which are equal."""


@pytest.mark.parametrize("cells", [2**25, 14, 1])  # in one part, in parts of two positions, and of one
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("wanted", ["log-probabilities", "entropies", "both"])
def test_gradients_are_those_of_the_plain_formula(cells, temperature, wanted, monkeypatch):
    monkeypatch.setattr(logprobs_module, "LOGIT_CELLS", cells)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    factors = torch.randn(2, 5, dtype=torch.float64, generator=generator)

    def weighed(scores: tuple[torch.Tensor, torch.Tensor | None]) -> torch.Tensor:
        logprobs, entropy = scores
        assert entropy is not None
        parts = {"log-probabilities": factors[0] * logprobs, "entropies": factors[1] * entropy}
        return torch.stack(list(parts.values()) if wanted == "both" else [parts[wanted]]).sum()

    ours = weighed(predicted_logprobs(giving(logits), torch.zeros(1, 5), PREDICTIONS, temperature, with_entropy=True))
    table = (logits[PREDICTIONS.positions] / temperature).log_softmax(-1)[PREDICTIONS.place]
    plain = weighed((table[torch.arange(5), PREDICTIONS.sampled], -(table.exp() * table).sum(-1)))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (ours, plain)))


def test_half_precision_keeps_the_gradient_of_32_bits_up_to_one_rounding():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = []
    for given in (logits.clone().requires_grad_(), logits.float().requires_grad_()):
        logprobs, entropy = predicted_logprobs(giving(given), torch.zeros(1, 5), PREDICTIONS, 0.7, with_entropy=True)
        assert entropy is not None
        assert logprobs.dtype == entropy.dtype == torch.float32
        found.append((logprobs, entropy, torch.autograd.grad((logprobs * entropy).sum(), given)[0]))
    for half, whole in zip(*found, strict=True):
        assert torch.equal(half, whole.to(half.dtype))
