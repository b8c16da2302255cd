import math

import pytest
import torch

from spark_rl.errors import UsageError
from spark_rl.objective.loss import Loss, Targets, k3, policy_loss, surrogate


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
