# pyright: standard
"""The clipped policy objective on sampled tokens, with divergence from a reference and entropy.

Invariant
---------
A step shared by many leaves is one set of tokens, and its loss equals the sum of the losses of one copy a leaf, the
denominators included (design rule 2). For a token with probability ratio r = exp(log-probability - old) and the
summed advantages A+ >= 0 >= A- of the trajectories through it, the objective is

    A+ * min(r, 1 + high) + A- * min(max(r, 1 - low), dual) - weight * (kl * k3 - entropy * H)

PPO's clip picks, for a positive advantage, min(r, 1 + high), and for a negative one max(r, 1 - low), bounded by the
dual clip (arXiv 1912.09729): both are linear in the advantage, so sums over trajectories are exact as long as the two
signs are kept apart. k3 = exp(d) - d - 1 with d = reference - log-probability is the low-variance divergence estimate.

A token mean divides by the mini-batch's sum of weights; a sequence mean first averages over each completion's tokens.
Both are sums of per-token terms over one denominator, so micro-batches add up to the mini-batch exactly.

torch is imported where tensors are computed, so recipes can hold a `Loss` without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from spark_rl.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Loss", "Targets", "k3", "policy_loss", "surrogate", "token_logprobs"]

ArrayT = TypeVar("ArrayT")

LOG_RATIO_LIMIT = 20.0
"""Differences of log-probabilities are clamped here before `exp`, so that a clamped term has gradient 0 and not 0 * inf."""
LOGIT_CELLS = 2**25
"""Most logits turned to 32-bit log-probabilities at once: 128 MiB, whatever the vocabulary."""


class Targets(NamedTuple, Generic[ArrayT]):
    """What sampled tokens learn from: arrays of shape [S], in row-major order of the tokens (numpy or torch)."""

    positive: ArrayT
    """Sum of the positive advantages of the trajectories through the token."""
    negative: ArrayT
    """Sum of the negative ones."""
    weight: ArrayT
    """How many trajectories the token stands for."""
    length: ArrayT
    """Tokens of the completion it belongs to."""
    sampling: ArrayT
    """Log-probability with which the rollout sampled it."""
    old: ArrayT
    """Log-probability the ratio is taken against: the rollout's, or the trainer's own before the update."""


@dataclass(frozen=True)
class Loss:
    """Settings of the policy objective."""

    clip_low: float = 0.2
    """A negative advantage stops pushing a token down below ratio 1 - clip_low."""
    clip_high: float = 0.2
    """A positive advantage stops pushing a token up above ratio 1 + clip_high."""
    dual_clip: float = 3.0
    """A negative advantage stops counting above this ratio; 0 turns it off."""
    kl: float = 0.01
    """Weight of the divergence from the reference (the frozen cold start); 0 holds no reference model."""
    kl_clamp: float = 10.0
    """Largest divergence a single token can count."""
    entropy: float = 0.001
    """Weight of the entropy bonus."""
    aggregation: Literal["token-mean", "sequence-mean"] = "token-mean"
    """Mean over all sampled tokens of a mini-batch, or over completions of each one's token mean."""
    importance: float = 0.0
    """Cap of the truncated importance weight between trainer and rollout engine, which corrects for the small
    differences of their log-probabilities; 0 trusts the rollout's log-probabilities."""

    def __post_init__(self) -> None:
        if not 0 < self.clip_low < 1:
            raise UsageError(f"loss.clip_low is {self.clip_low}: it must lie between 0 and 1")
        if not self.clip_high > 0:
            raise UsageError(f"loss.clip_high is {self.clip_high}: it must be above 0")
        if self.dual_clip != 0 and not self.dual_clip > 1:
            raise UsageError(f"loss.dual_clip is {self.dual_clip}: it must be above 1, or 0 for none")
        for name in ("kl", "entropy", "importance"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"loss.{name} is {getattr(self, name)}: it must be 0 or more")
        if not self.kl_clamp > 0:
            raise UsageError(f"loss.kl_clamp is {self.kl_clamp}: it must be above 0")
        if self.aggregation not in ("token-mean", "sequence-mean"):
            raise UsageError(f'loss.aggregation is "{self.aggregation}": choose token-mean or sequence-mean')

    def share(self, length: Any) -> Any:
        """A token's part of its completion's mean, from the completion's length: 1 for a token mean, else 1 / length."""
        return length ** (-1.0 if self.aggregation == "sequence-mean" else 0.0)

    def denominator(self, targets: Targets[Any]) -> float:
        """What the sums over a mini-batch are divided by: its trajectories' tokens, or their completions."""
        return float((targets.weight * self.share(targets.length)).sum())


def surrogate(loss: Loss, ratio: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """The clipped policy term of each token, to be maximised; all tensors [S]."""
    floor = ratio.clamp(min=1 - loss.clip_low, max=loss.dual_clip or None)
    return positive * ratio.clamp(max=1 + loss.clip_high) + negative * floor


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Per-token estimate of KL(policy || reference), at least 0; tensors [S]."""
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
    """Share of a mini-batch's loss that these tokens make up, and the same share of its statistics.

    Args:
        loss: the settings.
        targets: what the tokens learn from, [S].
        logprobs: log-probabilities under the policy being trained, [S], with gradient.
        entropy: entropy of the distribution each token was drawn from, [S].
        reference: log-probabilities under the reference model, [S]; None when `loss.kl` is 0.
        denominator: `loss.denominator` of the whole mini-batch.

    Returns:
        A scalar to call `backward` on, and numbers that add up over micro-batches to means weighted as the loss is;
        those whose name ends in `_max` combine by maximum.
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
            "rollout_gap_max": gap.abs().max(),
            "ratio_max": ratio.max(),
            "loss": -objective,
        }
        numbers: list[float] = torch.stack(list(sums.values())).tolist()
    return -objective, dict(zip(sums, numbers, strict=True))


def token_logprobs(
    model: Any, tokens: Tensor, sampled: Tensor, temperature: float, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the sampled tokens, and the entropy of the distributions they were drawn from.

    Rows are padded on the right: under causal attention no token sees what follows it, so padding needs no mask.
    Only positions that predict a sampled token reach the output layer, which for a large vocabulary is most of the
    memory; what an architecture does to its logits afterwards (scale, soft cap) is its own code.

    Args:
        model: a transformers causal language model.
        tokens: ids, [rows, length].
        sampled: which of them were sampled, bool [rows, length]; never the first of a row.
        temperature: of the rollout; 0 (greedy) counts as 1.
        with_entropy: whether to compute the entropy.

    Returns:
        Tensors [S] in row-major order, in 32 bits or the model's own precision if higher; None for no entropy.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    predicting = torch.zeros_like(sampled)
    predicting[:, :-1] = sampled[:, 1:]
    logits = _logits_at(model, tokens, predicting)
    ids = tokens[sampled]

    def score(part: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
        part = part.to(torch.promote_types(part.dtype, torch.float32)) / (temperature or 1.0)
        log_all = part.log_softmax(-1)
        entropy = -(log_all.exp() * log_all).sum(-1) if with_entropy else None
        return log_all.gather(-1, chosen[:, None])[:, 0], entropy

    size = max(1, LOGIT_CELLS // logits.shape[-1])
    if len(logits) <= size:
        return score(logits, ids)
    parts: list[Any] = [
        checkpoint(score, part, chosen, use_reentrant=False)  # or else every part's 32-bit copy is kept for backward
        for part, chosen in zip(logits.split(size), ids.split(size), strict=True)
    ]
    picked, entropies = zip(*parts, strict=True)
    return torch.cat(picked), torch.cat(entropies) if with_entropy else None


def _logits_at(model: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits [S, vocabulary] where `positions` is true, through the model's own forward pass."""
    select: Callable[..., Any] = lambda _, inputs: (inputs[0][positions], *inputs[1:])  # noqa: E731  reads as one step
    head = model.get_output_embeddings()
    if head is None:
        return model(input_ids=tokens, use_cache=False).logits[positions]
    hook = head.register_forward_pre_hook(select)
    try:
        return model(input_ids=tokens, use_cache=False).logits
    finally:
        hook.remove()
