"""Forward passes of the local engine: tokens packed into one row, and what each of them sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from spark_rl.contracts import Tokenizer
from spark_rl.engines.local.attention import Pass, View, answering
from spark_rl.engines.local.cache import Ints, Layout, PrefixCache
from spark_rl.engines.local.jobs import Level
from spark_rl.engines.local.levels import Slab

__all__ = ["Machine", "Passes", "arrange"]


class Machine(Protocol):
    """What a batch needs of its engine."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    layout: Layout
    cache: PrefixCache
    slabs: tuple[Slab, Slab, Slab]
    """Memory for trunk, limbs and tails."""
    context: int | None
    """Most tokens of prompt and completion together; None means no bound."""
    stops: NDArray[np.bool_]
    """Which token ids end a turn."""
    version: int
    """Version of the weights."""


class Passes:
    """Forward passes of an engine's model, and what they need on the model's device."""

    def __init__(self, engine: Machine) -> None:
        self.engine, self.device = engine, engine.layout.device

    def forward(
        self, ids: NDArray[np.integer], positions: NDArray[np.integer], work: Pass, logits: NDArray[np.int64]
    ) -> torch.Tensor:
        """The logits [len(logits), vocabulary] after these tokens of a pass over `ids` and `positions`, both [T]."""
        with answering(work):
            output = self.engine.model(
                input_ids=self.tensor(ids)[None],
                position_ids=self.tensor(positions)[None],
                use_cache=False,
                logits_to_keep=self.tensor(logits),
            )
        return output.logits[0]

    def tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        """The array on the model's device."""
        return torch.as_tensor(np.ascontiguousarray(array), device=self.device)

    def view(self, level: Level, jobs: NDArray[np.int64]) -> View | None:
        """The view of a whole level by tokens of these jobs, [T]; None where no job belongs to a group of it."""
        groups = level.of[jobs]
        tokens = np.flatnonzero(groups >= 0)
        if not len(tokens):
            return None
        queries, places = arrange(groups[tokens], len(level.spans))
        lengths = np.array([len(span.ids) - span.start for span in level.spans])
        width = int(lengths.max())
        mask = None
        if (lengths < width).any():
            mask = self.additive(self.tensor(np.arange(width) < lengths[:, None])[:, None, None])
        some = None if len(tokens) == len(jobs) else self.tensor(tokens)
        return View(level.slab, 0, len(level.spans), width, mask, self.tensor(tokens[queries]), some, self.tensor(places))

    def additive(self, visible: torch.Tensor) -> torch.Tensor:
        """What is added to scores: nothing where a cell is visible, else minus infinity."""
        return torch.zeros(visible.shape, device=self.device).masked_fill_(~visible, -torch.inf)

    def store(self, slab: Slab, parts: Sequence[tuple[int, int, Ints]]) -> None:
        """Copy cells to the pool. Each part is a group, its first column and the slots."""
        if parts:
            groups = np.concatenate([np.full(len(slots), group) for group, _, slots in parts])
            columns = np.concatenate([np.arange(len(slots)) + column for _, column, slots in parts])
            slots = np.concatenate([slots for _, _, slots in parts], dtype=np.int64)
            slab.store(self.engine.cache.pool, self.tensor(groups), self.tensor(columns), self.tensor(slots))


def arrange(groups: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items by group: their indices, padded with 0, [count, most]; and the place of each item in that, flattened."""
    sizes = np.bincount(groups, minlength=count)
    order = np.argsort(groups, kind="stable")
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    table = np.zeros((count, int(sizes.max())), np.int64)
    table[groups, rank] = np.arange(len(groups))
    return table, groups * table.shape[1] + rank
