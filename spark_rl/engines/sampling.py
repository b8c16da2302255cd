"""Drawing tokens: a hash of each sample's own seed, inverted through the cumulated distribution.

What a sample draws depends on its seed, the position and its own logits, and on no other sample of the batch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["draw", "uniform"]

BLOCK = 256
"""Tokens that are summed at once to find the drawn token."""
CELLS = 2**19
"""Numbers that a processor works on at once: several passes over more of them would each read and write main memory."""


def uniform(seeds: NDArray[np.uint64], position: int | NDArray[np.uint64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each seed at a position of its completion: SplitMix64 of both (Steele et al. 2014).

    Args:
        seeds: [rows].
        position: number of tokens drawn before, of all rows or of each, [rows].
    """
    with np.errstate(over="ignore"):
        step = (np.asarray(position, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = _mix(_mix(seeds) + step)
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
    columns = logits, temperature, torch.as_tensor(numbers, device=logits.device)[:, None]
    if logits.device.type != "cpu":
        return _draw(*columns)
    rows = max(1, CELLS // logits.shape[1])
    parts = zip(*(torch.split(column, rows) for column in columns), strict=True)
    drawn, chosen, entropy = zip(*(_draw(*part) for part in parts), strict=True)
    return torch.cat(drawn), torch.cat(chosen), torch.cat(entropy)


def _draw(
    logits: torch.Tensor, temperature: torch.Tensor, numbers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`draw`, all rows at once."""
    greedy = temperature == 0
    # Minus infinity times a probability of zero would be NaN in the entropy; the least finite number gives zero.
    scores = logits.float().clamp(min=torch.finfo(torch.float32).min)
    if bool((temperature != 1).any()):
        scores /= temperature.masked_fill(greedy, 1.0)
    probabilities = scores.softmax(-1)
    most, best = probabilities.max(-1, keepdim=True)
    normaliser = scores.gather(-1, best) - most.log()
    token = torch.where(greedy, best, _invert(probabilities, numbers))
    chosen = scores.gather(-1, token) - normaliser
    entropy = normaliser - torch.bmm(probabilities[:, None], scores[:, :, None])[:, 0]
    return token[:, 0], chosen[:, 0], entropy[:, 0].clamp(min=0.0)


def _invert(probabilities: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The first token up to which the probabilities sum to more than each number ([rows, 1]) of the whole; [rows, 1].

    Blocks of tokens are summed first, so that long sums in 64 bits are over blocks alone.
    """
    rows, vocabulary = probabilities.shape
    blocks = -(-vocabulary // BLOCK)
    if blocks * BLOCK > vocabulary:
        probabilities = torch.nn.functional.pad(probabilities, (0, blocks * BLOCK - vocabulary))
    parts = probabilities.view(rows, blocks, BLOCK)
    upto = parts.sum(-1).cumsum(-1, dtype=torch.float64)
    target = numbers * upto[:, -1:]
    # "right" never lands on a block or token of probability zero.
    block = torch.searchsorted(upto, target, right=True).clamp_(max=blocks - 1)
    before = torch.where(block > 0, upto.gather(-1, (block - 1).clamp(min=0)), 0.0)
    within = parts[torch.arange(rows, device=block.device), block[:, 0]].cumsum(-1, dtype=torch.float64)
    # The sum of a block is rounded, so the target may lie past its last token.
    last = torch.searchsorted(within, within[:, -1:].contiguous())
    place = torch.minimum(torch.searchsorted(within, target - before, right=True), last)
    return (block * BLOCK + place).clamp_(max=vocabulary - 1)
