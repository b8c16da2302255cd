"""Drawing tokens: hand-made distributions and the hash behind them."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.engines.sampling import draw, uniform


def _entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_numbers_fall_where_the_cumulated_distribution_says() -> None:
    logits = torch.tensor([0.125, 0.25, 0.0, 0.5, 0.125]).log().expand(8, -1)  # cumulated: .125 .375 .375 .875 1
    numbers = np.array([0.0, 0.124, 0.125, 0.374, 0.375, 0.874, 0.876, 1 - 2.0**-53])
    tokens, logprobs, entropies = draw(logits, torch.ones(8, 1), numbers)
    assert tokens.tolist() == [0, 0, 1, 1, 3, 3, 4, 4]  # never 2, whose probability is 0
    assert np.allclose(logprobs.exp(), [0.125, 0.125, 0.25, 0.25, 0.5, 0.5, 0.125, 0.125])
    assert np.allclose(
        entropies, 1.75 * math.log(2)
    )  # 1/2 * 1 bit + 1/4 * 2 + 2 * 1/8 * 3; the token of probability 0 adds none


def test_temperature_is_each_row_s_own_and_zero_is_greedy() -> None:
    logits = torch.tensor([[math.log(1), math.log(2)]]).expand(3, -1)
    tokens, logprobs, entropies = draw(logits, torch.tensor([[1.0], [0.5], [0.0]]), np.array([0.3, 0.3, 0.3]))
    assert tokens.tolist() == [0, 1, 1]  # 1/3 and 2/3, then 1/5 and 4/5
    assert np.allclose(logprobs.exp(), [1 / 3, 4 / 5, 2 / 3])
    assert np.allclose(entropies, [_entropy(1 / 3), _entropy(4 / 5), _entropy(1 / 3)])  # greedy: that of temperature 1


def test_frequencies_are_those_of_the_tempered_distribution() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, 1.2])
    count = 20_000
    tokens, _, _ = draw(logits.expand(count, -1), torch.full((count, 1), 0.7), uniform(np.arange(count, dtype=np.uint64), 3))
    found = np.bincount(tokens.numpy(), minlength=5) / count
    assert np.abs(found - torch.softmax(logits / 0.7, -1).numpy()).max() < 4 * math.sqrt(0.25 / count)


@given(st.integers(0, 2**64 - 1), st.integers(0, 10_000))
def test_a_number_depends_on_its_seed_and_position_only(seed: int, position: int) -> None:
    alone = uniform(np.array([seed], np.uint64), position)
    assert 0 <= alone[0] < 1
    assert uniform(np.array([5, seed, 9], np.uint64), position)[1] == alone[0]


def test_numbers_are_even_and_unrelated() -> None:
    grid = np.stack([uniform(np.arange(500, dtype=np.uint64), position) for position in range(200)])
    assert len(np.unique(grid)) == grid.size
    histogram = np.histogram(grid, bins=20, range=(0, 1))[0]
    assert np.abs(histogram - grid.size / 20).max() < 5 * math.sqrt(grid.size / 20)
    for left, right in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])):  # along positions, along seeds
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 5 / math.sqrt(left.size)
