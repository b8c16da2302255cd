"""Attention of the local engine: new tokens of many sequences, packed into one row, over keys and values that they share.

Invariants
----------
* What a token attends to is the union of its views, whatever the number of views: the softmax is over all of them together.
* The model's own code computes all but attention, and its configuration is the same after a forward pass as before.

The engine takes the place of the model's attention by transformers' `AttentionInterface`. A view holds the keys and values
of one level (`levels`). Each view gives its outputs and the logarithm of its sum of exponentials, by which the outputs are
combined (as in cascade inference, Ye et al. 2024). Few queries a group are multiplied directly, which costs little more than
reading the keys and values once; more queries go through the fused kernel of the processor.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from transformers import AttentionInterface, PreTrainedModel

from spark_rl.contracts import LanguageModel
from spark_rl.engines.local.cache import Layout
from spark_rl.engines.local.levels import Slab
from spark_rl.errors import UsageError
from spark_rl.models.attention import attending_by, peculiarity

__all__ = ["Pass", "View", "answering", "attending", "check_attention"]

NAME = "spark_rl_levels"
DIRECT = 2**20
"""Most scores that are computed directly; more go through the fused kernel, which does not hold them."""


@dataclass(frozen=True, eq=False)
class View:
    """The keys and values of consecutive groups of a slab, and which tokens of the pass ask them."""

    slab: Slab
    first: int
    last: int
    """One past the last group."""
    width: int
    """Columns that may be seen."""
    mask: torch.Tensor | None
    """What is added to the scores, [groups, 1, 1 or queries, width]; None where all columns are seen."""
    queries: torch.Tensor | None = None
    """The tokens of each group, padded with token 0, [groups, queries]; None: token i is the only one of group i."""
    tokens: torch.Tensor | None = None
    """Which tokens ask, [T']; None: all, in order."""
    places: torch.Tensor | None = None
    """The place of each of `tokens` in `queries`, flattened, [T']."""

    def attend(self, layer: int, query: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of the tokens that ask.

        Args:
            layer: which layer of the model.
            query: [T, heads, width].
            scale: factor of the scores.

        Returns:
            Outputs [T', heads, width] and logarithms of the sums of exponentials [T', heads].
        """
        keys, values = (self.slab.data[2 * layer + part, self.first : self.last, :, : self.width] for part in (0, 1))
        groups, shared, _, width = keys.shape
        heads = query.shape[1]
        asked = query[:, None] if self.queries is None else query[self.queries]  # [groups, queries, heads, width]
        count = asked.shape[1]
        # Heads that share keys stand side by side as queries, so that keys are read once for all of them.
        asked = asked.view(groups, count, shared, heads // shared, width).transpose(1, 2).reshape(groups, shared, -1, width)
        mask = self.mask
        if mask is not None and mask.shape[2] > 1:
            mask = mask.repeat_interleave(heads // shared, 2)
        kernel = _direct if asked.shape[:3].numel() * self.width <= DIRECT else _fused
        output, total = kernel(asked, keys, values, mask, scale)
        output = output.view(groups, shared, count, -1, width).transpose(1, 2).reshape(groups * count, heads, width)
        total = total.view(groups, shared, count, -1).transpose(1, 2).reshape(groups * count, heads)
        return (output, total) if self.places is None else (output[self.places], total[self.places])


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass: where the keys and values of its tokens go, and what the tokens see."""

    slab: Slab
    groups: torch.Tensor
    """Group of each token, [T]."""
    columns: torch.Tensor
    """Column of each token, [T]."""
    views: Sequence[View]
    """The last one holds the tokens' own keys, so that every token sees something."""

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Store keys and values ([T, heads of keys, width]), and attend. Returns [T, heads, width]."""
        self.slab.write(2 * layer, self.groups, self.columns, key)
        self.slab.write(2 * layer + 1, self.groups, self.columns, value)
        *others, own = self.views
        output, total = own.attend(layer, query, scale)
        for view in others:
            more, sums = view.attend(layer, query, scale)
            if view.tokens is not None:
                more = torch.zeros_like(output).index_copy_(0, view.tokens, more.to(output.dtype))
                sums = torch.full_like(total, -torch.inf).index_copy_(0, view.tokens, sums)
            # The share of the new part in both parts' sum of exponentials.
            share = torch.sigmoid(sums - total)[..., None].to(output.dtype)
            output = torch.lerp(output, more.to(output.dtype), share)
            total = torch.logaddexp(total, sums)
        return output.to(query.dtype)


class _Attends(Protocol):
    """What answers a layer's question; see `Pass.attend`."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor: ...


_current: ContextVar[_Attends] = ContextVar("_current")


def attending(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Within the block, the model's forward passes take their attention from what is `answering`."""
    return attending_by(NAME, cast(LanguageModel, model))


@contextmanager
def answering(work: _Attends) -> Generator[None]:
    """Within the block, the pass answers the layers."""
    token = _current.set(work)
    try:
        yield
    finally:
        _current.reset(token)


@dataclass(frozen=True)
class _Witness:
    """Notes which layers ask for attention."""

    layers: set[int]

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        self.layers.add(layer)
        return query


def check_attention(model: PreTrainedModel, layout: Layout) -> None:
    """Refuse a model whose attention the engine cannot take the place of, by a forward pass of one token.

    Raises:
        UsageError: some layer does not take its attention from transformers' AttentionInterface.
    """
    witness, zero = _Witness(set()), torch.zeros(1, 1, dtype=torch.long, device=layout.device)
    if getattr(model, "_supports_attention_backend", False):  # its only name, which is private
        with torch.no_grad(), attending(model), answering(witness):
            model(input_ids=zero, position_ids=zero, use_cache=False)
    if len(witness.layers) != layout.layers:
        raise UsageError(
            f'the local engine cannot take the place of the attention of type "{model.config.model_type}", which does not '
            "use transformers' AttentionInterface: use another engine or model"
        )


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """What models call: query [1, heads, T, width], key and value [1, heads of keys, T, width]."""
    if name := peculiarity(others):
        raise UsageError(f'the local engine cannot run a model whose attention has "{name}": use another engine')
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    layer: int = getattr(module, "layer_idx")  # noqa: B009  modules have no type for it
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _current.get().attend(layer, query, key, value, scale)[None], None


AttentionInterface.register(NAME, _attention)  # pyright: ignore[reportUnknownMemberType]  its functions have no types


def _direct(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """By plain products; sums are in 32 bits or the model's own precision if higher."""
    scores = torch.matmul(query, keys.transpose(-1, -2))
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).mul_(scale)
    if mask is not None:
        scores += mask
    most = scores.amax(-1, keepdim=True)
    weights = scores.sub_(most).exp_()
    sums = weights.sum(-1, keepdim=True)
    output = torch.matmul(weights.to(values.dtype), values) / sums
    return output, (most + sums.log())[..., 0]


def _fused(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """By the processor's kernel, which keeps no scores in memory; elsewhere by plain products."""
    if query.device.type != "cpu":
        return _direct(query, keys, values, mask, scale)
    if mask is not None:
        mask = mask.to(query.dtype).expand(*query.shape[:3], keys.shape[2])
    # torch does not type its operators.
    operators = cast("Any", torch.ops.aten)
    found: tuple[torch.Tensor, torch.Tensor] = operators._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, 0.0, False, attn_mask=mask, scale=scale
    )
    return found
