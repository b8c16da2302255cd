"""Attention of a prefix tree: many sequences go through a model as one, and each token attends to its ancestors only.

Invariants
----------
* Tokens stand in depth-first order. The descendants of token u are the tokens u + 1 to ends[u] - 1, so token t attends to
  token u if and only if u <= t < ends[u].
* A token's output is that of the plain causal sequence from its root, up to the rounding of another order of sums.

All layers but attention work on single tokens, so the model's own code runs them as on any sequence. The model calls the
function that is registered here in the attention interface of `transformers`, and hands it the option `tree` of the forward
pass. While the function is set (`attending`), passes without this option take the library's own function.

On a CPU (`Blocks`) the sequence is cut into blocks of queries, each with one call of torch's attention. The keys of a block
are the ancestors of its first token, and the block itself. There are no others: an ancestor of a later token that stands
before the block is also an ancestor of the first token. A mask hides those of one query from another. The cuts are those
with the fewest scores, where each block has a price besides. On other devices (`Tiles`), `flex_attention` skips the tiles in
which no query sees a key.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from itertools import pairwise
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import (
    repeat_kv,
    sdpa_attention_forward,  # pyright: ignore[reportUnknownVariableType]  untyped options
)

from spark_rl.common.cuts import cheapest_cuts
from spark_rl.contracts import LanguageModel
from spark_rl.models.attention import attending_by, peculiarity

__all__ = ["Ancestry", "Blocks", "Tiles", "ancestry", "attending", "copies", "depths", "obstacle"]

Ints = NDArray[np.int64]

NAME = "spark_rl_tree"
"""Name of the function in the library's interface."""
GRAIN = 32
"""A block starts where a branch starts, or a multiple of this many tokens later."""
CALL = 16_000
"""Price of a block, in scores: the time of its calls beside the arithmetic. Any price from 4,000 to 32,000 is as good."""
COPY = 8
"""Price of each key of a block, in scores: its copy, and the sum of its gradients."""
WIDEST = 1024
"""Most tokens of a block."""


class Ancestry(Protocol):
    """A prefix tree, ready for attention. One object serves all layers and passes of a micro-batch."""

    calls: int
    """How often a layer has used it."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Outputs [1, heads, T, width] of queries of that shape, and of keys and values [1, heads of keys, T, width]."""
        ...


def ancestry(ends: Ints, device: torch.device) -> Ancestry:
    """The prefix tree whose token u has its descendants before `ends[u]`, for a device.

    Args:
        ends: [T], in depth-first order.
        device: device of the model.
    """
    return Blocks(ends) if device.type == "cpu" else Tiles(ends, device)


def depths(ends: Ints) -> Ints:
    """The number of ancestors of each token, [T], which is its position in its sequences."""
    closed = np.cumsum(np.bincount(ends, minlength=len(ends) + 1))
    return np.arange(len(ends)) - closed[: len(ends)]


class Blocks:
    """Blocks of queries on copies of the keys and values that they see."""

    def __init__(self, ends: Ints) -> None:
        """Cut a sequence of T tokens; `ends` is [T]."""
        self.calls = 0
        starts = _cuts(ends)
        spans = list(pairwise(starts))
        keys = [np.append(np.flatnonzero(ends[:start] > start), np.arange(start, stop)) for start, stop in spans]
        self.queries = [stop - start for start, stop in spans]
        """Tokens of each block."""
        # Pieces end where the keys of a block begin, leave a gap out, or go on after it.
        jumps = [of_block[np.diff(of_block, prepend=-2) != 1] for of_block in keys]
        gaps = [of_block[:-1][np.diff(of_block) != 1] + 1 for of_block in keys]
        edges = np.unique(np.concatenate([np.array(starts), *jumps, *gaps]))
        self.sizes: list[int] = np.diff(edges).tolist()
        """Tokens of each piece; every block sees whole pieces of keys."""
        self.pieces: list[list[int]] = [np.flatnonzero(np.isin(edges[:-1], of_block)).tolist() for of_block in keys]
        """The pieces that each block sees."""
        self.visible = [
            torch.as_tensor(np.arange(start, stop)[:, None] >= of_block)
            & torch.as_tensor(np.arange(start, stop)[:, None] < ends[of_block])
            for (start, stop), of_block in zip(spans, keys, strict=True)
        ]
        """Whether a query of a block sees a key of the block, [queries, keys]."""
        self._masks: dict[torch.dtype, list[Tensor]] = {}

    @property
    def scores(self) -> int:
        """How many scores a head computes, hidden ones included."""
        return sum(visible.numel() for visible in self.visible)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """One call a block. `split` and `cat` have cheap gradients; that of a slice has the size of the whole sequence."""
        self.calls += 1
        keys, values = torch.split(key, self.sizes, 2), torch.split(value, self.sizes, 2)
        blocks = torch.split(query, self.queries, 2)
        parts = [
            scaled_dot_product_attention(
                block,
                torch.cat([keys[piece] for piece in pieces], 2),
                torch.cat([values[piece] for piece in pieces], 2),
                attn_mask=mask,
                scale=scale,
                enable_gqa=query.shape[1] != key.shape[1],
            )
            for block, pieces, mask in zip(blocks, self.pieces, self._added(query.dtype), strict=True)
        ]
        return torch.cat(parts, 2)

    def _added(self, dtype: torch.dtype) -> list[Tensor]:
        """The masks as numbers that are added to scores, made once for all layers."""
        if dtype not in self._masks:
            zero = torch.zeros((), dtype=dtype)
            self._masks[dtype] = [zero.new_zeros(each.shape).masked_fill_(~each, -torch.inf) for each in self.visible]
        return self._masks[dtype]


def _cuts(ends: Ints) -> list[int]:
    """Starts of the blocks with the lowest price, and T at the end.

    The price of a block of q tokens, whose first token has depth d, is (q + COPY) (d + q) + CALL.
    """
    depth = depths(ends)
    branches = np.flatnonzero(np.diff(depth, prepend=-2) != 1)
    grid = [np.arange(start, stop, GRAIN) for start, stop in pairwise([*branches.tolist(), len(ends)])]
    places = np.array([*np.concatenate(grid), len(ends)])

    def prices(place: int) -> tuple[int, NDArray[np.float64]]:
        first = min(int((places < places[place] - WIDEST).sum()), place - 1)
        starts = places[first:place]
        tokens = places[place] - starts
        return first, ((tokens + COPY) * (depth[starts] + tokens) + CALL).astype(np.float64)

    return places[cheapest_cuts(len(places) - 1, prices)].tolist()


def copies(row: int) -> float:
    """About how many copies of its keys and values a token has in `Blocks`, at most, if no sequence is longer than `row`."""
    return 1 + row / (2 * (CALL + COPY * row)) ** 0.5


class Tiles:
    """Tiles of `flex_attention`."""

    def __init__(self, ends: Ints, device: torch.device) -> None:
        """Find the tiles with a visible score; `ends` is [T]."""
        self.calls = 0
        limits = torch.as_tensor(ends, device=device)

        def visible(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (query < limits[key])

        self.mask: BlockMask = create_block_mask(visible, None, None, len(ends), len(ends), device=device)
        self.function = _compiled() if device.type == "cuda" else flex_attention

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """One call for all tiles."""
        self.calls += 1
        groups = query.shape[1] // key.shape[1]
        if query.shape[1] & (query.shape[1] - 1):  # the kernel shares keys only among a power of two of heads
            key, value, groups = repeat_kv(key, groups), repeat_kv(value, groups), 1
        return cast(Tensor, self.function(query, key, value, block_mask=self.mask, scale=scale, enable_gqa=groups > 1))


@cache
def _compiled() -> Callable[..., object]:
    """`flex_attention` as one kernel, compiled once; without compiling it computes every score."""
    return torch.compile(flex_attention)  # pyright: ignore[reportUnknownMemberType]  untyped in torch


# -- models -----------------------------------------------------------------------------------------------------------


class _Unfit(Exception):
    """An attention layer wants more than plain attention; its text names what."""


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    tree: Ancestry | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """The function in the library's interface: outputs [1, T, heads, width], and no weights of attention."""
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)  # pyright: ignore
    if name := peculiarity(options):
        raise _Unfit(f"its attention has a {name}")
    return tree.attend(query, key, value, scaling).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)  # pyright: ignore[reportUnknownMemberType]  untyped in transformers


def attending(*models: LanguageModel) -> AbstractContextManager[None]:
    """Let models take the option `tree` until the block ends.

    The backward pass belongs into the block too, since it may compute layers again.
    """
    return attending_by(NAME, *models)


def obstacle(model: LanguageModel) -> str:
    """Why a model cannot read prefix trees; empty if it can.

    A model can if all its layers have full attention through the library's interface, and if it computes the same logits for
    two short sequences and for their tree. The two are tried out.
    """
    config = cast(_Config, model.config).get_text_config()
    kinds = set(cast("list[str] | None", getattr(config, "layer_types", None)) or ()) - {"full_attention"}
    if kinds:
        return f"it has layers of the kind {min(kinds)}"
    tree = ancestry(np.array([7, 7, 5, 5, 5, 7, 7]), model.device)
    ids = torch.arange(7, device=model.device)[None] % config.vocab_size
    try:
        with torch.no_grad():
            apart = [model(input_ids=ids[:, path], use_cache=False).logits[0] for path in _PATHS]
        positions = torch.tensor([[0, 1, 2, 3, 4, 2, 3]], device=model.device)
        with torch.no_grad(), attending(model):
            merged = model(input_ids=ids, position_ids=positions, tree=tree, use_cache=False).logits[0]
    except Exception as error:  # an architecture may refuse the unknown in any way
        return str(error) if isinstance(error, _Unfit) else f"its forward pass fails ({type(error).__name__})"
    if tree.calls != config.num_hidden_layers:
        return "its attention does not go through the interface of transformers"
    gap = max(float((merged[path] - alone).abs().max()) for path, alone in zip(_PATHS, apart, strict=True))
    bound = max(1e-4, 8 * torch.finfo(merged.dtype).eps) * float(merged.abs().max())
    return "" if gap <= bound else f"its logits differ by {gap:.1e} between a tree and its sequences"


_PATHS = ([0, 1, 2, 3, 4], [0, 1, 5, 6])
"""The tokens of the two sequences that `obstacle` tries."""


class _TextConfig(Protocol):
    """The settings of a language model's configuration that `obstacle` reads."""

    num_hidden_layers: int
    vocab_size: int


class _Config(Protocol):
    """A configuration of `transformers`, which may hold parts beside the language model."""

    def get_text_config(self) -> _TextConfig: ...
