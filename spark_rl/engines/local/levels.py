"""What the prompts of a batch have in common, and the memory for their keys and values.

Invariants
----------
* A token that several sequences share is computed and held once for each group of a level, not once for each sequence.
* Cells without a token hold finite numbers, because attention multiplies them by zero.

The sequences of a batch are cut into at most three levels. The trunk is what all have in common (the instructions). A limb
is what a group of neighbours has in common (mostly the sequences of one tree). A tail is what a sequence has alone. Cuts are
made where they save most cells. Each level has a slab: group by group, token i of a group in column i.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spark_rl.common.prefix import shared_prefix
from spark_rl.engines.local.cache import Ints, Layout

__all__ = ["SAVING", "Cut", "Slab", "cut"]

SAVING = 0.1
"""A level is made if it saves at least this share of all cells; each level costs a few small operations a layer."""


class Slab:
    """Keys and values of a running batch at one level, written in place."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.buffer = self._zeros(0)
        self.open(0, 0)

    def _zeros(self, numbers: int) -> torch.Tensor:
        return torch.zeros(numbers, dtype=self.layout.dtype, device=self.layout.device)

    def open(self, groups: int, columns: int) -> None:
        """Make room for a new batch. The cells keep old numbers, which are finite."""
        layout = self.layout
        shape = (2 * layout.layers, groups, layout.heads, columns, layout.width)
        if (numbers := int(np.prod(shape))) > self.buffer.numel():
            self.buffer = self._zeros(numbers + numbers // 4)  # room to grow: transcripts get longer at every turn
        self.data = self.buffer[:numbers].view(shape)
        """[2 * layers, groups, heads, columns, width]: keys and values alternate."""

    def widen(self, columns: int) -> None:
        """Give every group more columns, keeping what it holds."""
        old = self.data
        self.buffer = self._zeros(old[:, :, :, :1].numel() * columns)
        self.open(old.shape[1], columns)
        self.data[:, :, :, : old.shape[3]] = old

    def write(self, plane: int, groups: torch.Tensor, columns: torch.Tensor, states: torch.Tensor) -> None:
        """Put states [T, heads, width] into cells (`groups`, `columns`) of one plane."""
        self.data[plane].transpose(1, 2)[groups, columns] = states

    def select(self, groups: torch.Tensor, width: int) -> None:
        """Replace group i by group `groups[i]`, in the first `width` columns."""
        for plane in self.data:
            plane[: len(groups), :, :width] = plane[groups, :, :width]

    # Exchange with the pool.

    def load(self, pool: torch.Tensor, slots: torch.Tensor) -> None:
        """Copy pool slots ([groups, width]) to the first columns of the first groups."""
        groups, width = slots.shape
        for plane, kept in zip(self.data, pool, strict=True):
            found = kept.index_select(0, slots.flatten()).view(groups, width, self.layout.heads, -1)
            plane[:groups, :, :width] = found.transpose(1, 2)

    def store(self, pool: torch.Tensor, groups: torch.Tensor, columns: torch.Tensor, slots: torch.Tensor) -> None:
        """Copy cells (`groups`, `columns`) to pool slots."""
        for plane, kept in zip(self.data, pool, strict=True):
            kept[slots] = plane.transpose(1, 2)[groups, columns].flatten(1)


@dataclass(frozen=True, eq=False)
class Cut:
    """How sequences are cut."""

    trunk: int
    """Tokens that all have in common; 0: no trunk."""
    limbs: Ints
    """The limb of each sequence; -1: none."""
    ends: Ints
    """Where the limb of each sequence ends and its tail begins; the end of the trunk where it has no limb."""


def cut(prompts: Sequence[Ints], counts: Sequence[int]) -> Cut:
    """Where to cut sequences so that few cells are held. The last token of a prompt is never shared.

    Args:
        prompts: token ids, all different.
        counts: how many samples each prompt has; each sample goes on as a sequence of its own.
    """
    order = sorted(range(len(prompts)), key=lambda index: prompts[index].tolist())
    own = np.array([len(prompts[index]) - 1 for index in order])
    rows, whole = sum(counts), sum(len(prompt) * count for prompt, count in zip(prompts, counts, strict=True))
    neighbours = itertools.pairwise(order)
    shared = np.minimum(
        np.array([shared_prefix(prompts[left], prompts[right]) for left, right in neighbours], np.int64),
        np.minimum(own[:-1], own[1:]),
    )
    trunk = int(min(shared.min(initial=own[0]), own[0]))
    if (rows - 1) * trunk < SAVING * whole:
        trunk = 0
    ends, limbs = np.full(len(order), trunk), np.full(len(order), -1)
    best = rows * int(own.max() - trunk) - SAVING * whole
    # Neighbours that share at least `bound` tokens are in one group; at the highest bound each prompt is a group.
    for bound in np.unique(np.append(shared[shared > trunk], own.max() + 1)).tolist():
        starts = np.flatnonzero(np.append(True, shared < bound))
        group = np.cumsum(np.append(True, shared < bound)) - 1
        common = _common(own, shared, starts)
        limb = (np.add.reduceat(np.array(counts)[order], starts) > 1) & (common > trunk)
        to = np.where(limb, common, trunk)
        cells = int(limb.sum()) * int(to.max() - trunk) + rows * int((own - to[group]).max())
        if cells < best:
            best, ends, limbs = cells, to[group], np.where(limb, np.cumsum(limb) - 1, -1)[group]
    back = np.argsort(order)
    return Cut(trunk, limbs[back].astype(np.int32), ends[back].astype(np.int32))


def _common(own: NDArray[np.int64], shared: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens that all prompts of each stretch of neighbours have in common; the last token of a prompt does not count."""
    between = np.append(shared, own[-1])
    between[starts[1:] - 1] = own[starts[1:] - 1]  # what a stretch shares with the next one
    return np.minimum.reduceat(np.minimum(own, between), starts)
