"""Attention over several views is one softmax over all that they show."""

from __future__ import annotations

import pytest
import torch

from spark_rl.engines.local import attention
from spark_rl.engines.local.attention import Pass, View
from spark_rl.engines.local.cache import Layout
from spark_rl.engines.local.levels import Slab

HEADS, SHARED, WIDTH, SCALE = 6, 2, 8, 0.3


def filled(groups: int, columns: int, dtype: torch.dtype) -> Slab:
    slab = Slab(Layout(layers=1, heads=SHARED, width=WIDTH, dtype=dtype, device=torch.device("cpu")))
    slab.open(groups, columns)
    slab.data.copy_(torch.randn(slab.data.shape))
    return slab


@pytest.mark.parametrize("direct", [0, 10**9])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_views_are_one_softmax(monkeypatch: pytest.MonkeyPatch, direct: int, dtype: torch.dtype, bound: float) -> None:
    """Five tokens: a trunk for all, a limb for the first three and one for the fourth, a tail for each."""
    monkeypatch.setattr(attention, "DIRECT", direct)
    torch.manual_seed(0)
    trunk, limbs, tails = filled(1, 7, dtype), filled(2, 4, dtype), filled(5, 3, dtype)
    lengths = torch.tensor([4, 2])  # of the limbs
    shown = torch.where(torch.arange(4) < lengths[:, None], 0.0, -torch.inf)[:, None, None]
    columns = torch.tensor([0, 2, 1, 2, 0])  # of each token in its tail
    own = torch.where(torch.arange(3) <= columns[:, None], 0.0, -torch.inf)[:, None, None]
    views = [
        View(trunk, 0, 1, 7, None, torch.arange(5)[None], None, torch.arange(5)),
        View(limbs, 0, 2, 4, shown, torch.tensor([[0, 1, 2], [3, 0, 0]]), torch.arange(4), torch.tensor([0, 1, 2, 3])),
        View(tails, 0, 5, 3, own),
    ]
    query = torch.randn(5, HEADS, WIDTH).to(dtype)
    key, value = torch.randn(2, 5, SHARED, WIDTH).to(dtype)
    found = Pass(tails, torch.arange(5), columns, views).attend(0, query, key, value, SCALE)
    for token in range(5):
        seen = [trunk.data[:, 0]]
        if token < 4:
            limb = token // 3
            seen.append(limbs.data[:, limb, :, : lengths[limb]])
        seen.append(tails.data[:, token, :, : columns[token] + 1])
        keys, values = (part.double().repeat_interleave(HEADS // SHARED, 0) for part in torch.cat(seen, 2))
        assert torch.equal(keys[:: HEADS // SHARED, -1], key[token].double())
        weights = (torch.einsum("hw,hcw->hc", query[token].double(), keys) * SCALE).softmax(-1)
        assert (found[token].double() - torch.einsum("hc,hcw->hw", weights, values)).abs().max() < bound
