"""The price of bfloat16 on a processor."""

from __future__ import annotations

import torch

from spark_rl.models.precision import bfloat16_price, warning


def test_a_price_is_measured_and_nothing_is_set() -> None:
    before = torch.get_num_threads()
    assert bfloat16_price() > 0
    assert torch.get_num_threads() == before


def test_only_emulation_is_told() -> None:
    assert warning(0.4) == warning(1.0) == ""
    assert "takes 2.5 times as long as in float32, so set weights.dtype float32" in warning(2.5)
