"""The choice of a thread count."""

from __future__ import annotations

import torch

from spark_rl.models.threads import choose_threads


def test_a_usable_number_is_chosen_and_nothing_is_set() -> None:
    before = torch.get_num_threads()
    assert choose_threads() >= 1
    assert torch.get_num_threads() == before
