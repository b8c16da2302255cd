"""Log-probabilities of sampled tokens, and entropies of their distributions, with as little memory as can be.

Invariants
----------
* Only positions that predict a sampled token reach the output layer. The architecture's own code scales or caps its logits.
* Logits become 32-bit numbers in parts of bounded size. What the backward pass keeps of them is the logits
  themselves and two numbers for each position.

With Z = logsumexp(x), p = exp(x - Z) and H = Z - sum(p x), the gradient of a log-probability log p[i] with respect to the
tempered logits x is 1[i] - p, and that of the entropy H is -p (log p + H).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spark_rl.contracts import LanguageModel

__all__ = ["LOGIT_CELLS", "Predictions", "predicted_logprobs", "token_logprobs"]

LOGIT_CELLS = 2**25
"""Most logits that are turned into 32-bit log-probabilities at once: 128 MiB, whatever the size of the vocabulary."""
PROCESSOR_CELLS = 2**20
"""The same on a processor, where several passes over more of them would each read and write main memory."""


class Predictions(NamedTuple):
    """Which tokens of a forward pass were sampled, and where they are predicted."""

    positions: Tensor
    """Positions in the flattened ids that predict a sampled token, [P], without duplicates."""
    place: Tensor
    """Which of the positions predicts each sampled token, [S]; several tokens may share one."""
    sampled: Tensor
    """Ids of the sampled tokens, [S]."""


def token_logprobs(
    model: LanguageModel, tokens: Tensor, sampled: Tensor, temperature: float, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """`predicted_logprobs` of rows that are padded on the right.

    Under causal attention no token sees a later one, so padding needs no mask.

    Args:
        model: a transformers causal language model.
        tokens: ids, [rows, length].
        sampled: marks the ids that were sampled, bool [rows, length]; the first of a row is never marked.
        temperature: temperature of the rollout; 0 (greedy) counts as 1.
        with_entropy: whether to compute the entropy.

    Returns:
        Two tensors [S] in row-major order; see `predicted_logprobs`.
    """
    positions = sampled.flatten().nonzero()[:, 0] - 1
    place = torch.arange(len(positions), device=tokens.device)
    predictions = Predictions(positions, place, tokens[sampled])
    return predicted_logprobs(model, tokens, predictions, temperature, with_entropy)


def predicted_logprobs(
    model: LanguageModel,
    tokens: Tensor,
    predictions: Predictions,
    temperature: float,
    with_entropy: bool = False,
    options: Mapping[str, object] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the sampled tokens, and the entropy of the distributions that they were drawn from.

    Only positions that predict a sampled token reach the output layer, since logits of a large vocabulary take most of the
    memory. The architecture's own code scales or caps its logits afterwards.

    Args:
        model: a transformers causal language model.
        tokens: ids, [sequences, length].
        predictions: the sampled tokens.
        temperature: temperature of the rollout; 0 (greedy) counts as 1.
        with_entropy: whether to compute the entropy.
        options: further options of the model's forward pass, by name.

    Returns:
        Two tensors [S], in 32 bits or the model's own precision if higher. Without `with_entropy` the second is None.
    """
    logits = _logits_at(model, tokens, predictions.positions, options or {})
    # torch does not say what `apply` returns.
    logprobs, entropy = cast(
        "tuple[Tensor, Tensor]",
        _Scores.apply(logits, predictions.place, predictions.sampled, temperature or 1.0, with_entropy),  # pyright: ignore[reportUnknownMemberType]
    )
    return logprobs, entropy[predictions.place] if with_entropy else None


class _Scores(torch.autograd.Function):
    """Log-probabilities [S] of sampled tokens, and entropies [P] (or [0]), from logits [P, vocabulary]."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, place: Tensor, sampled: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        """Part by part; nothing of the size of the vocabulary is kept."""
        ctx.set_materialize_grads(False)
        ctx.temperature = temperature
        precision = torch.promote_types(logits.dtype, torch.float32)
        chosen = torch.empty(len(sampled), dtype=precision, device=logits.device)
        normaliser = torch.empty(len(logits), dtype=precision, device=logits.device)
        entropy = torch.empty(len(logits) if with_entropy else 0, dtype=precision, device=logits.device)
        for rows, drawn in _parts(logits, place):
            scores = _tempered(logits[rows], temperature)
            normaliser[rows] = scores.logsumexp(-1)
            chosen[drawn] = scores[place[drawn] - rows.start, sampled[drawn]]
            if with_entropy:
                probabilities = (scores - normaliser[rows, None]).exp_()
                entropy[rows] = normaliser[rows] - torch.bmm(probabilities[:, None], scores[:, :, None])[:, 0, 0]
        ctx.save_for_backward(logits, place, sampled, normaliser, entropy)
        return chosen - normaliser[place], entropy

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  torch names one gradient for each result
        ctx: Any, of_logprobs: Tensor | None, of_entropy: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradient of the logits, part by part, in their own precision."""
        logits, place, sampled, normaliser, entropy = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        gradient = torch.empty_like(logits)
        for rows, drawn in _parts(logits, place):
            inner = _tempered(logits[rows], ctx.temperature) - normaliser[rows, None]
            probabilities = inner.exp()
            if of_entropy is None:
                part = probabilities.mul_(-_summed(of_logprobs, place, drawn, rows))
            else:
                weight = inner.add_(entropy[rows, None]).mul_(of_entropy[rows, None])
                part = probabilities.mul_(weight.add_(_summed(of_logprobs, place, drawn, rows)).neg_())
            if of_logprobs is not None:
                part.index_put_((place[drawn] - rows.start, sampled[drawn]), of_logprobs[drawn], accumulate=True)
            gradient[rows] = part if ctx.temperature == 1 else part.div_(ctx.temperature)
        return gradient, None, None, None, None


def _parts(logits: Tensor, place: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of logits that are scored at once, and the indices of the sampled tokens that they predict."""
    cells = min(LOGIT_CELLS, PROCESSOR_CELLS) if logits.device.type == "cpu" else LOGIT_CELLS
    size = max(1, cells // logits.shape[-1])
    part = place // size
    for start in range(0, len(logits), size):
        yield slice(start, min(start + size, len(logits))), (part == start // size).nonzero()[:, 0]


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """Logits over the temperature, in 32 bits or more."""
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return scores if temperature == 1 else scores / temperature


def _summed(of_logprobs: Tensor | None, place: Tensor, drawn: Tensor, rows: slice) -> Tensor | float:
    """For each row, the sum of the gradients of the log-probabilities that it predicts, [rows, 1]."""
    if of_logprobs is None:
        return 0.0
    total = of_logprobs.new_zeros(rows.stop - rows.start)
    return total.index_add_(0, place[drawn] - rows.start, of_logprobs[drawn])[:, None]


def _logits_at(model: LanguageModel, tokens: Tensor, positions: Tensor, options: Mapping[str, object]) -> Tensor:
    """Logits [P, vocabulary] at positions of the flattened ids, from the model's own forward pass."""

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return inputs[0].flatten(0, 1)[positions], *inputs[1:]

    head = model.get_output_embeddings()
    if head is None:
        return model(input_ids=tokens, use_cache=False, **options).logits.flatten(0, 1)[positions]
    hook = head.register_forward_pre_hook(select)
    try:
        return model(input_ids=tokens, use_cache=False, **options).logits
    finally:
        hook.remove()
