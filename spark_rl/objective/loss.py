"""The clipped policy objective on sampled tokens, with divergence from a reference model and entropy.

Invariant
---------
A step that many leaves share is one set of tokens. Its loss equals the sum of the losses of one copy for each leaf, the
denominators included. For a token with probability ratio r = exp(log-probability - old) and the
summed advantages A+ >= 0 >= A- of the trajectories through it, the objective is

    A+ * min(r, 1 + high) + A- * min(max(r, 1 - low), dual) - weight * (kl * k3 - entropy * H)

For a positive advantage, PPO's clip picks min(r, 1 + high); for a negative one it picks max(r, 1 - low), bounded by the
dual clip (arXiv 1912.09729). Both terms are linear in the advantage, so sums over trajectories are exact as long as
positive and negative advantages are summed separately. k3 = exp(d) - d - 1, with d = reference - log-probability, is the
low-variance estimate of the divergence.

A token mean divides by the mini-batch's sum of weights; a sequence mean first averages over each completion's tokens.
Both are sums of per-token terms over one denominator, so micro-batches add up to the mini-batch exactly.

Functions that compute tensors import torch inside, so recipes can hold a `Loss` without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, Protocol, Self, SupportsFloat, TypeVar, cast

from spark_rl.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Loss", "Targets", "k3", "policy_loss", "surrogate"]


class _Array(Protocol):
    """The arithmetic that numpy arrays and torch tensors share, as far as `Loss.denominator` needs it."""

    def __pow__(self, exponent: float, /) -> Self: ...

    def __mul__(self, other: Self, /) -> Self: ...

    def sum(self) -> SupportsFloat: ...


ArrayT = TypeVar("ArrayT")
NumbersT = TypeVar("NumbersT", bound=_Array)

LOG_RATIO_LIMIT = 20.0
"""Differences of log-probabilities are clamped to this before `exp`. A clamped term then has gradient 0 and not 0 * inf."""


class Targets(NamedTuple, Generic[ArrayT]):
    """The training signal of sampled tokens: arrays of shape [S], in row-major order of the tokens (numpy or torch)."""

    positive: ArrayT
    """Sum of the positive advantages of the trajectories through the token."""
    negative: ArrayT
    """Sum of the negative advantages."""
    weight: ArrayT
    """How many trajectories the token stands for."""
    length: ArrayT
    """Number of tokens in the token's completion."""
    sampling: ArrayT
    """Log-probability with which the rollout sampled the token."""
    old: ArrayT
    """Log-probability in the ratio's denominator: the rollout's, or the trainer's own before the update."""


@dataclass(frozen=True)
class Loss:
    """Settings of the policy objective."""

    clip_low: float = 0.2
    """A negative advantage stops pushing a token down below ratio 1 - clip_low."""
    clip_high: float = 0.2
    """A positive advantage stops pushing a token up above ratio 1 + clip_high."""
    dual_clip: float = 3.0
    """A negative advantage stops counting above this ratio; 0 turns the dual clip off."""
    kl: float = 0.01
    """Weight of the divergence from the reference model (the frozen cold start); with 0 no reference model is loaded."""
    kl_clamp: float = 10.0
    """Largest divergence that a single token can contribute."""
    entropy: float = 0.001
    """Weight of the entropy bonus."""
    aggregation: Literal["token-mean", "sequence-mean"] = "token-mean"
    """`token-mean`: mean over all sampled tokens of a mini-batch. `sequence-mean`: mean over completions of their token
    means."""
    importance: float = 0.0
    """Cap of the truncated importance weight between trainer and rollout engine, which corrects for the differences of their
    log-probabilities. With 0 there is no weight, except as `trusted_gap` says."""
    trusted_gap: float = 0.02
    """Largest mean distance (nats) of the log-probabilities of trainer and rollout engine that needs no correction. An
    update above it has an importance weight capped at 2, where `importance` is 0. The local engine is always trusted, since
    it computes as the trainer does."""

    def __post_init__(self) -> None:
        if not 0 < self.clip_low < 1:
            raise UsageError(f"loss.clip_low is {self.clip_low}: it must lie between 0 and 1")
        if not self.clip_high > 0:
            raise UsageError(f"loss.clip_high is {self.clip_high}: it must be above 0")
        if self.dual_clip != 0 and not self.dual_clip > 1:
            raise UsageError(f"loss.dual_clip is {self.dual_clip}: it must be above 1, or 0 for none")
        for name in ("kl", "entropy", "importance", "trusted_gap"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"loss.{name} is {getattr(self, name)}: it must be 0 or more")
        if not self.kl_clamp > 0:
            raise UsageError(f"loss.kl_clamp is {self.kl_clamp}: it must be above 0")
        if self.aggregation not in ("token-mean", "sequence-mean"):
            raise UsageError(f'loss.aggregation is "{self.aggregation}": choose token-mean or sequence-mean')

    def share(self, length: NumbersT) -> NumbersT:
        """A token's share of its completion's mean, from the completion's length: 1 for a token mean, else 1 / length."""
        return length ** (-1.0 if self.aggregation == "sequence-mean" else 0.0)

    def denominator(self, targets: Targets[NumbersT]) -> float:
        """The divisor of sums over a mini-batch: the number of its trajectories' tokens, or of their completions."""
        return float((targets.weight * self.share(targets.length)).sum())


def surrogate(loss: Loss, ratio: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """The clipped policy term of each token, which training maximises; all tensors [S]."""
    floor = ratio.clamp(min=1 - loss.clip_low, max=loss.dual_clip or None)
    return positive * ratio.clamp(max=1 + loss.clip_high) + negative * floor


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) for each token, at least 0; tensors [S]."""
    gap = (reference - logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return gap.exp() - gap - 1


def policy_loss(
    loss: Loss,
    targets: Targets[Tensor],
    logprobs: Tensor,
    entropy: Tensor,
    reference: Tensor | None,
    denominator: float,
) -> tuple[Tensor, dict[str, float]]:
    """The part of a mini-batch's loss that these tokens contribute, and their part of its statistics.

    Args:
        loss: the settings.
        targets: the tokens' training signal, [S].
        logprobs: log-probabilities under the policy that is trained, [S], with gradient.
        entropy: entropy of the distribution that each token was drawn from, [S].
        reference: log-probabilities under the reference model, [S]; None when `loss.kl` is 0.
        denominator: `loss.denominator` of the whole mini-batch.

    Returns:
        A scalar to call `backward` on, and statistics by name. Over micro-batches the statistics add up to means with the
        weights of the loss; those whose name ends in `_max` combine by maximum.
    """
    import torch

    share = loss.share(targets.length) / denominator
    weight = targets.weight * share
    log_ratio = (logprobs - targets.old).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    policy = surrogate(loss, ratio, targets.positive, targets.negative)
    if loss.importance:
        policy = policy * (targets.old - targets.sampling).exp().clamp(max=loss.importance)
    objective = (policy * share).sum()
    divergence = torch.zeros_like(logprobs) if reference is None else k3(logprobs, reference).clamp(max=loss.kl_clamp)
    if loss.kl:
        objective = objective - loss.kl * (divergence * weight).sum()
    if loss.entropy:
        objective = objective + loss.entropy * (entropy * weight).sum()

    with torch.no_grad():
        high = (targets.positive > 0) & (ratio > 1 + loss.clip_high)
        low = (targets.negative < 0) & (ratio < 1 - loss.clip_low)
        dual = (targets.negative < 0) & (ratio > (loss.dual_clip or torch.inf))
        gap = targets.sampling - logprobs
        sums = {
            "clip_fraction": ((high | low | dual) * weight).sum(),
            "dual_clip_fraction": (dual * weight).sum(),
            "old_kl": ((ratio - 1 - log_ratio) * weight).sum(),
            "reference_kl": (divergence * weight).sum(),
            "entropy": (entropy * weight).sum(),
            "rollout_kl": (gap * weight).sum(),
            "rollout_gap": (gap.abs() * weight).sum(),
            "rollout_gap_max": gap.abs().max(),
            "ratio_max": ratio.max(),
            "loss": -objective,
        }
        # torch does not say what `tolist` returns.
        numbers = cast("list[float]", torch.stack(list(sums.values())).tolist())  # pyright: ignore[reportUnknownMemberType]
    return -objective, dict(zip(sums, numbers, strict=True))
