"""Drawing tokens: a hash of each sample's own seed, inverted through the cumulated distribution.

What a sample draws depends on its seed, the position and its own logits, and on no other sample of the batch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["draw", "uniform"]


def uniform(seeds: NDArray[np.uint64], position: int) -> NDArray[np.float64]:
    """One number in [0, 1) for each seed at a position of its completion: SplitMix64 of both (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = _mix(_mix(seeds) + np.uint64((position + 1) * 0x9E3779B97F4A7C15 % 2**64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, numbers: NDArray[np.float64]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Invert the cumulated tempered distribution at the given numbers.

    Args:
        logits: [rows, vocabulary].
        temperature: [rows, 1] float32; 0 takes the most likely token.
        numbers: [rows], in [0, 1).

    Returns:
        Token ids, their log-probabilities and the entropies (nats) of their distributions, all [rows]. Both are taken at the
        temperature, or at 1 where the temperature is 0.
    """
    greedy = temperature == 0
    logprobs = torch.log_softmax(logits.float() / temperature.masked_fill(greedy, 1.0), dim=-1)
    probabilities = logprobs.exp()
    cumulated = probabilities.cumsum(-1, dtype=torch.float64)
    target = torch.as_tensor(numbers, device=logits.device)[:, None] * cumulated[:, -1:]
    # "right" never lands on a token of probability zero.
    token = torch.searchsorted(cumulated, target, right=True).clamp_(max=logits.shape[-1] - 1)
    token = torch.where(greedy, logprobs.argmax(-1, keepdim=True), token)
    chosen = logprobs.gather(-1, token)[:, 0]
    # A token of probability zero adds nothing, where 0 * -inf would be NaN; log-probabilities are not needed any more.
    entropy = probabilities.mul_(logprobs.clamp_(min=torch.finfo(logprobs.dtype).min)).sum(-1).neg_()
    return token[:, 0], chosen, entropy
