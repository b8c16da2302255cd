"""Keys and values that are kept between calls: sequences by address, over one pool of slots.

Invariants
----------
* The cache is exact: an entry holds token ids and the keys and values computed for them, and is used only as far as its
  ids agree with those of the prompt.
* Every token of a tree is stored once. A sequence is a list of slots in one pool; sequences that share a prefix share its
  slots, and a slot is free when no entry and no running batch holds it.
* Memory is bounded by the number of slots. The least recently used entry is evicted first, whatever the clock says, so that
  the same calls give the same cache.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from spark_rl.errors import UsageError

__all__ = ["Entry", "Layout", "PrefixCache"]

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Layout:
    """Shape and place of one token's keys and values."""

    layers: int
    heads: int
    width: int
    """Numbers per head."""
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, model: PreTrainedModel) -> Layout:
        """Read the layout off the forward pass of one token, which works for any architecture.

        Raises:
            UsageError: the model keeps something other than plain keys and values of all positions.
        """
        ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        with torch.no_grad():
            # `past_key_values` until transformers 5.24 made it `cache`.
            argument = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
            cache: object = getattr(model(input_ids=ids, use_cache=True), argument)
        layers = cache.layers if isinstance(cache, DynamicCache) else []
        plain = [layer for layer in layers if type(layer) is DynamicLayer]
        states = [each for layer in plain for each in (layer.keys, layer.values) if each is not None]
        if len(states) != 2 * len(layers) or len({each.shape for each in states}) != 1:
            raise UsageError(
                f'the local engine needs the same full attention in every layer, unlike type "{model.config.model_type}": '
                "use a model without sliding windows, recurrent or compressed layers"
            )
        keys = states[0]
        return cls(len(layers), keys.shape[1], keys.shape[3], keys.dtype, keys.device)

    @property
    def bytes(self) -> int:
        """Bytes of one token."""
        return 2 * self.layers * self.heads * self.width * self.dtype.itemsize


class Entry(NamedTuple):
    """A cached sequence."""

    ids: Ints
    """Token ids."""
    slots: Ints
    """Pool slot of each token's keys and values."""


NOTHING = Entry(np.zeros(0, np.int32), np.zeros(0, np.int32))


class PrefixCache:
    """Cached sequences by address, over a pool of slots."""

    def __init__(self, layout: Layout, size: int) -> None:
        """Room for as many tokens as fit `size` bytes (memory is touched only when slots are used)."""
        self.layout = layout
        self.capacity = max(size // layout.bytes, 0)
        self.clear()

    def clear(self) -> None:
        """Forget everything and give the memory back."""
        self.entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self.held = np.zeros(self.capacity + 1, np.int32)
        """How many entries and running batches hold each slot; slot 0 is padding and never given out."""
        self.free = np.arange(self.capacity, 0, -1, dtype=np.int32)
        """A stack, low slots on top, so that memory grows with use."""
        self.left = self.capacity
        self._pool: torch.Tensor | None = None

    @property
    def pool(self) -> torch.Tensor:
        """[2 * layers, 1 + capacity, heads * width]: keys and values by slot."""
        if self._pool is None:
            shape = (2 * self.layout.layers, self.capacity + 1, self.layout.heads * self.layout.width)
            self._pool = torch.empty(shape, dtype=self.layout.dtype, device=self.layout.device)
            self._pool[:, 0] = 0
        return self._pool

    def find(self, address: Hashable) -> Entry | None:
        """The entry under the address; the call counts as a use."""
        if (entry := self.entries.get(address)) is not None:
            self.entries.move_to_end(address)
        return entry

    def put(self, address: Hashable, entry: Entry) -> None:
        """Store a sequence under the address, in place of an older one. The caller holds the sequence's slots."""
        self.hold(entry.slots)
        if (old := self.entries.pop(address, None)) is not None:
            self.release(old.slots)
        self.entries[address] = entry

    def reserve(self, count: int) -> Ints | None:
        """`count` slots, held once for the caller; None when the running batch holds too many for that."""
        while self.left < count <= self.capacity and self.entries:
            _, oldest = self.entries.popitem(last=False)
            self.release(oldest.slots)
        if self.left < count:
            return None
        self.left -= count
        slots = self.free[self.left : self.left + count].copy()
        self.held[slots] = 1
        return slots

    def hold(self, slots: Ints) -> None:
        """Keep distinct slots from being given out."""
        self.held[slots] += 1

    def release(self, slots: Ints) -> None:
        """Undo one `hold`."""
        self.held[slots] -= 1
        gone = slots[self.held[slots] == 0]
        self.free[self.left : self.left + len(gone)] = gone
        self.left += len(gone)
