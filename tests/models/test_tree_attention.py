"""Attention of prefix trees: against a dense mask, for models of several kinds, and for those that cannot have it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from spark_rl.models import tree_attention
from spark_rl.models.tree_attention import Blocks, Tiles, attending, copies, depths, obstacle

SIZE: dict[str, Any] = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


@st.composite
def trees(draw: st.DrawFn, largest: int = 60) -> np.ndarray:
    """`ends` of a random prefix tree: chains that start at a random token of the present path."""
    size = draw(st.integers(1, largest))
    ends, path = np.full(size, size), []
    for token in range(size):
        if path and draw(st.booleans()) and draw(st.booleans()):
            kept = draw(st.integers(0, len(path)))
            ends[path[kept:]] = token
            path = path[:kept]
        path.append(token)
    return ends


def dense(ends: np.ndarray) -> torch.Tensor:
    """Whether each token sees each other, [T, T]."""
    token = np.arange(len(ends))
    return torch.as_tensor((token <= token[:, None]) & (token[:, None] < ends))


def states(size: int, heads: int, of_keys: int) -> list[torch.Tensor]:
    """Queries, keys and values."""
    torch.manual_seed(0)
    return [torch.randn(1, n, size, 8, dtype=torch.float64, requires_grad=True) for n in (heads, of_keys, of_keys)]


def by_mask(inputs: list[torch.Tensor], ends: np.ndarray) -> torch.Tensor:
    query, key, value = inputs
    mask = dense(ends).to(query.device)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True)


def same(tree: Blocks, ends: np.ndarray, heads: tuple[int, int]) -> None:
    """Outputs and gradients are those of a dense mask."""
    inputs = states(len(ends), *heads)
    expected = by_mask(inputs, ends)
    found = tree.attend(*inputs, scale=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@given(trees(), st.sampled_from([0, 20, 10**6]), st.sampled_from([1, 4, 32]), st.sampled_from([(4, 2), (3, 3)]))
@settings(max_examples=60)
def test_blocks_are_the_dense_mask(ends, call, grain, heads):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "CALL", call)
        patch.setattr(tree_attention, "GRAIN", grain)
        patch.setattr(tree_attention, "COPY", 0)
        blocks = Blocks(ends)
    same(blocks, ends, heads)
    assert sum(blocks.queries) == sum(blocks.sizes) == len(ends)
    assert blocks.scores >= depths(ends).sum() + len(ends)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@given(trees())
@settings(max_examples=5, deadline=None)
def test_tiles_are_the_dense_mask(ends):
    """Uncompiled, as on no device that trains: `flex_attention` has no gradient on a CPU."""
    inputs = [each.detach() for each in states(len(ends), 3, 3)]
    with torch.no_grad():
        found = Tiles(ends, torch.device("cpu")).attend(*inputs, scale=0.3)
        expected = by_mask(inputs, ends)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flex_attention is compiled for CUDA devices only; there is none")
def test_compiled_tiles_are_the_dense_mask():
    ends = np.concatenate([np.full(300, 900), np.full(250, 550), np.full(350, 900)])
    inputs = [each.detach().float().cuda().requires_grad_() for each in states(900, 9, 3)]
    expected = by_mask(inputs, ends)
    found = Tiles(ends, torch.device("cuda")).attend(*inputs, scale=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    for one, other in zip(*(torch.autograd.grad(each.square().sum(), inputs) for each in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


@given(trees())
def test_depths_count_ancestors(ends):
    assert depths(ends).tolist() == (dense(ends).sum(1) - 1).tolist()


@given(trees(), st.integers(0, 50), st.randoms())
def test_no_other_cuts_have_a_lower_price(ends, call, rng):
    def price(cuts: list[int]) -> int:
        depth = depths(ends)
        return sum((b - a + tree_attention.COPY) * (depth[a] + b - a) + call for a, b in pairwise(cuts))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "CALL", call)
        patch.setattr(tree_attention, "GRAIN", 1)
        found = tree_attention._cuts(ends)
    other = sorted({0, len(ends), *(rng.randrange(len(ends)) for _ in range(5))})
    assert price(found) <= price(other)


def test_chains_are_cut_where_the_square_is_too_large():
    """A chain of 4,000 tokens computes little more than the 8 M scores below its diagonal; two trees share no block."""
    assert Blocks(np.full(4000, 4000)).scores < 1.1 * 4000 * 4001 / 2
    assert Blocks(np.repeat([700, 1400], 700)).queries.count(1400) == 0
    copied = sum(visible.shape[1] for visible in Blocks(np.full(4000, 4000)).visible) / 4000
    assert 0.4 * copies(4000) < copied < copies(4000)


# -- models -----------------------------------------------------------------------------------------------------------


FIT: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZE, head_dim=4)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SIZE)),
    "learnt positions": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=4)),
}
UNFIT: dict[str, tuple[Any, str]] = {
    "sliding layers": (lambda: Gemma2ForCausalLM(Gemma2Config(**SIZE, head_dim=4, pad_token_id=0)), "sliding_attention"),
    "sliding window": (lambda: MistralForCausalLM(MistralConfig(**SIZE, sliding_window=4096)), "sliding"),
    "soft cap": (
        lambda: Gemma2ForCausalLM(
            Gemma2Config(**SIZE, head_dim=4, pad_token_id=0, layer_types=["full_attention"] * 2, attn_logit_softcapping=5.0)
        ),
        "softcap",
    ),
    "recurrent": (lambda: MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2)), ""),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", FIT)
def test_models_with_full_attention_read_trees(kind, dtype):
    torch.manual_seed(0)
    model = FIT[kind]().to(dtype).eval()
    before = model.config._attn_implementation
    assert obstacle(model) == ""
    assert model.config._attn_implementation == before == "sdpa"


@pytest.mark.parametrize("kind", UNFIT)
def test_other_models_say_why_not(kind):
    torch.manual_seed(0)
    build, reason = UNFIT[kind]
    model = build().eval()
    before = model.config._attn_implementation
    found = obstacle(model)
    assert found
    assert reason in found
    assert model.config._attn_implementation == before


def test_a_model_that_mixes_up_positions_is_found_out():
    torch.manual_seed(0)
    model = FIT["llama"]()
    plain = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: plain(x, torch.arange(x.shape[1])[None])
    model.model.layers[0].self_attn.q_proj.weight.data *= 50
    assert "differ" in obstacle(model)


def test_passes_without_a_tree_are_the_library_s_own():
    torch.manual_seed(0)
    model = FIT["llama"]()
    ids = torch.randint(0, 20, (2, 9))
    with torch.no_grad():
        expected = model(ids).logits
        with attending(model, model):
            assert torch.equal(model(ids).logits, expected)
    assert model.config._attn_implementation == "sdpa"
