import math
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM, Qwen2Config, Qwen2ForCausalLM

from spark_rl.errors import UsageError
from spark_rl.objective import loss as loss_module
from spark_rl.objective.loss import Loss, Targets, k3, policy_loss, surrogate, token_logprobs

SIZE: dict[str, Any] = {
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def targets(length=(1, 1), weight=(1, 1), positive=(0, 0), negative=(0, 0), old=(-1, -1), sampling=None):
    return Targets(*map(lambda x: tensor(*x), (positive, negative, weight, length, sampling or old, old)))  # noqa: C417


PLAIN = Loss(kl=0, entropy=0)


def test_two_signs_kept_apart_give_what_two_rows_give():
    """Ratio 1.5, clip 0.2, one trajectory +1 and one -1: per row min(1.5, 1.2) - 1.5 = -0.3; summed first it would be 0."""
    assert surrogate(PLAIN, tensor(1.5), tensor(1.0), tensor(-1.0)).item() == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("ratio", "positive", "negative", "value"),
    [
        (0.5, 2.0, 0.0, 1.0),  # a good action made rarer: no clip
        (1.5, 2.0, 0.0, 2.4),  # made more likely than 1 + high: clipped
        (0.5, 0.0, -2.0, -1.6),  # a bad action made rarer than 1 - low: clipped
        (1.5, 0.0, -2.0, -3.0),  # made more likely: no clip
        (5.0, 0.0, -2.0, -6.0),  # beyond the dual clip: 3 * A
    ],
)
def test_clips_by_hand(ratio, positive, negative, value):
    assert surrogate(PLAIN, tensor(ratio), tensor(positive), tensor(negative)).item() == pytest.approx(value)


def test_the_clips_are_asymmetric_and_the_dual_clip_optional():
    loose = Loss(clip_low=0.1, clip_high=0.5, dual_clip=0)
    assert surrogate(loose, tensor(1.6, 0.5, 50.0), tensor(1, 0, 0), tensor(0, -1, -1)).tolist() == pytest.approx(
        [1.5, -0.9, -50]
    )


def test_k3_by_hand():
    assert k3(tensor(-1.0, -1.0), tensor(-1.0, -1.0 + math.log(2))).tolist() == pytest.approx([0, 2 - math.log(2) - 1])


def test_a_token_mean_weighs_tokens_and_a_sequence_mean_completions():
    """A completion of three tokens with advantage 1 and one of one token with advantage -2, on policy."""
    given = targets(length=(3, 3, 3, 1), weight=(1,) * 4, positive=(1, 1, 1, 0), negative=(0, 0, 0, -2), old=(-1,) * 4)
    token_mean, sequence_mean = Loss(kl=0, entropy=0), Loss(kl=0, entropy=0, aggregation="sequence-mean")
    for loss, expected in ((token_mean, (3 - 2) / 4), (sequence_mean, (1 - 2) / 2)):
        value, _ = policy_loss(loss, given, given.old, torch.zeros(4), None, loss.denominator(given))
        assert -value.item() == pytest.approx(expected)


def test_divergence_and_entropy_count_once_for_each_trajectory():
    loss = Loss(kl=0.5, entropy=0.25, kl_clamp=10)
    given = targets(weight=(3, 1))
    reference = tensor(-1 + math.log(2), -1)
    value, stats = policy_loss(loss, given, tensor(-1, -1), tensor(2, 1), reference, loss.denominator(given))
    divergence = 3 * (1 - math.log(2)) / 4
    assert (stats["reference_kl"], stats["entropy"]) == pytest.approx((divergence, 7 / 4))
    assert value.item() == stats["loss"] == pytest.approx(0.5 * divergence - 0.25 * 7 / 4)


def test_a_single_token_s_divergence_is_bounded_and_its_gradient_finite():
    logprobs = tensor(-500.0, -1.0).requires_grad_()
    loss, given = Loss(kl=1.0, entropy=0), targets()
    value, stats = policy_loss(loss, given, logprobs, torch.zeros(2), tensor(-1.0, -1.0), loss.denominator(given))
    value.backward()
    assert stats["reference_kl"] == pytest.approx(5)
    assert logprobs.grad is not None
    assert logprobs.grad.isfinite().all()


def test_the_importance_weight_is_truncated_and_touches_the_policy_term_only():
    """The rollout sampled with half (and a tenth) of the trainer's probability: weights 2 and min(10, 4)."""
    given = targets(positive=(1, 1), sampling=(-1 - math.log(2), -1 - math.log(10)))
    loss = Loss(kl=0, entropy=1.0, importance=4.0)
    value, _ = policy_loss(loss, given, given.old, tensor(3, 3), None, loss.denominator(given))
    assert -value.item() == pytest.approx((2 + 4) / 2 + 3)


def test_statistics_say_what_was_clipped():
    ratios = (1.5, 0.5, 5.0, 1.0)
    given = targets(length=(1,) * 4, weight=(1, 1, 1, 1), positive=(1, 0, 0, 1), negative=(0, -1, -1, -1), old=(-1,) * 4)
    logprobs = tensor(*(-1 + math.log(ratio) for ratio in ratios))
    _, stats = policy_loss(PLAIN, given, logprobs, torch.zeros(4), None, PLAIN.denominator(given))
    assert stats["clip_fraction"] == pytest.approx(3 / 4)
    assert stats["dual_clip_fraction"] == pytest.approx(1 / 4)
    assert stats["ratio_max"] == pytest.approx(5)
    assert stats["old_kl"] == pytest.approx(sum(ratio - 1 - math.log(ratio) for ratio in ratios) / 4)
    assert stats["rollout_kl"] == pytest.approx(-sum(map(math.log, ratios)) / 4)
    assert stats["rollout_gap_max"] == pytest.approx(math.log(5))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_low", 1.0),
        ("clip_high", 0.0),
        ("dual_clip", 1.0),
        ("kl", -0.1),
        ("entropy", math.nan),
        ("importance", -1.0),
        ("kl_clamp", 0.0),
        ("aggregation", "mean"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(field, value):
    with pytest.raises(UsageError, match=rf"loss\.{field} is"):
        Loss(**{field: value})


ARCHITECTURES = [
    lambda: Qwen2ForCausalLM(Qwen2Config(**SIZE, tie_word_embeddings=True)),
    lambda: Gemma2ForCausalLM(Gemma2Config(**SIZE, head_dim=4, final_logit_softcapping=0.01, pad_token_id=0)),
    lambda: GraniteForCausalLM(GraniteConfig(**SIZE, logits_scaling=0.05)),
]


@pytest.mark.parametrize("build", ARCHITECTURES, ids=["plain", "soft cap", "scaled"])
@pytest.mark.parametrize("cells", [2**25, 40])  # in one piece, and in pieces of two tokens
def test_log_probabilities_are_those_of_each_row_alone(build, cells, monkeypatch):
    monkeypatch.setattr(loss_module, "LOGIT_CELLS", cells)
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
