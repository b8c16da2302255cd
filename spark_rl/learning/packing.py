"""From rows of tokens to micro-batches that go through the model, in two ways.

    tree    the rows of a micro-batch are merged into a prefix tree, whatever trees and steps they come from: a token that
            several rows start with goes through the model once (`models.tree_attention`)
    rows    each row goes through the model on its own, padded to the longest row of its micro-batch

Invariants
----------
* Both ways predict each sampled token from the same tokens before it, so they give the same loss and the same gradient.
* A micro-batch has at most `token_budget` tokens, padding included, or a single row.
* The largest micro-batch comes first, so that a lack of memory shows at once.

Rows in lexicographic order are the paths of their prefix tree in depth-first order, and two neighbours share as much as any
two rows around them. A micro-batch is a run of neighbours. Where two micro-batches meet, what the neighbours share is read
twice; of all cuts that keep the budget, those are taken that read the fewest tokens twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spark_rl.common.cuts import cheapest_cuts
from spark_rl.common.prefix import shared_prefix
from spark_rl.common.ranks import ALONE, spread
from spark_rl.contracts import Ranks
from spark_rl.errors import UsageError
from spark_rl.learning.batch import Batch, Row, join
from spark_rl.objective.loss import Targets

__all__ = ["MicroBatch", "Packing", "Passes", "microbatches"]

Packing = Literal["tree", "rows"]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """What goes through the model at once."""

    rows: tuple[int, ...]
    """Indices of the rows in the batch."""
    tokens: Ints
    """Token ids, [sequences, length]. A prefix tree is one sequence; rows are padded with id 0 on the right."""
    ends: Ints | None
    """For a prefix tree, [length]: the descendants of token u are the tokens u + 1 to ends[u] - 1. None for rows."""
    size: int
    """Number of tokens, without padding."""
    predicting: Ints
    """Positions in the flattened `tokens` that predict a sampled token, [P], without duplicates."""
    place: Ints
    """Which of these positions predicts each sampled token, [S], in the order of `rows`. Several tokens may share one."""
    sampled: Ints
    """Ids of the sampled tokens, [S]."""
    targets: Targets[NDArray[np.float64]]
    """The training signal of the sampled tokens, [S]."""


def microbatches(batch: Batch, token_budget: int, packing: Packing) -> Iterator[MicroBatch]:
    """The micro-batches of a batch; each row is in one of them.

    Raises:
        UsageError: `token_budget` is below 1.
    """
    if token_budget < 1:
        raise UsageError(f"token_budget is {token_budget}: it must be at least 1")
    return _merged(batch, token_budget) if packing == "tree" else _padded(batch, token_budget)


@dataclass(frozen=True)
class Passes:
    """How a batch goes through a model."""

    temperature: float
    """Temperature of the rollout, by which logits are divided; 0 (greedy) counts as 1."""
    token_budget: int
    """Most tokens in a forward pass, padding included; a single row may exceed it."""
    packing: Packing = "rows"
    """`tree` needs a model without `tree_attention.obstacle`."""
    ranks: Ranks = ALONE
    """The processes that hold the shards of the model (`sharding.shard`); all have the same batch."""

    def share(self, batch: Batch) -> Iterator[MicroBatch]:
        """This rank's micro-batches. Every rank gets equally many; one that runs out gets some that count nothing.

        For several ranks a micro-batch may be smaller than the budget, so that all have about the same to read. This
        changes no gradient.
        """
        budget, packing, ranks = self.token_budget, self.packing, self.ranks
        if ranks.count == 1:
            yield from microbatches(batch, budget, packing)
            return
        passes = -(-sum(micro.size for micro in microbatches(batch, budget, packing)) // (budget * ranks.count))
        whole = (
            batch.tokens if packing == "rows" else sum(micro.size for micro in microbatches(batch, batch.tokens, packing))
        )
        micros = list(microbatches(batch, min(budget, -(-whole // (max(passes, 1) * ranks.count))), packing))
        chosen = spread([micro.size for micro in micros], ranks)
        yield from (micros[index] for index in chosen[ranks.rank])
        yield from (_nothing(packing) for _ in range(max(map(len, chosen)) - len(chosen[ranks.rank])))


def _nothing(packing: Packing) -> MicroBatch:
    """A micro-batch of two tokens without weight, and of no row."""
    one, zero = np.ones(1), np.zeros(1)
    targets = Targets(*(one if name == "length" else zero for name in Targets._fields))
    first = np.zeros(1, np.int64)
    ends = np.array([2, 2]) if packing == "tree" else None
    return MicroBatch((), np.zeros((1, 2), np.int64), ends, 0, first, first, first, targets)


# -- rows ---------------------------------------------------------------------------------------------------------------


def _padded(batch: Batch, token_budget: int) -> Iterator[MicroBatch]:
    """Rows of similar length together, the longest first."""
    order = sorted(range(len(batch.rows)), key=lambda row: -len(batch.rows[row]))
    while order:
        width = len(batch.rows[order[0]])
        size = max(1, token_budget // width)
        yield _pad(batch, order[:size], width)
        order = order[size:]


def _pad(batch: Batch, chosen: list[int], width: int) -> MicroBatch:
    rows = [batch.rows[row] for row in chosen]
    tokens = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row.tokens
    predicting = np.concatenate([place * width + np.flatnonzero(row.sampled) - 1 for place, row in enumerate(rows)])
    return MicroBatch(
        rows=tuple(chosen),
        tokens=tokens,
        ends=None,
        size=sum(map(len, rows)),
        predicting=predicting,
        place=np.arange(len(predicting)),
        sampled=np.concatenate([row.tokens[row.sampled] for row in rows]),
        targets=join([batch.targets[row] for row in chosen]),
    )


# -- trees --------------------------------------------------------------------------------------------------------------


def _merged(batch: Batch, token_budget: int) -> Iterator[MicroBatch]:
    """Prefix trees, those with the most tokens first."""
    if not batch.rows:
        return
    # Big-endian bytes of equal width sort as the ids do.
    order = sorted(range(len(batch.rows)), key=lambda row: batch.rows[row].tokens.astype(">u4").tobytes())
    rows = [batch.rows[row] for row in order]
    common = [0, *(shared_prefix(one.tokens, other.tokens) for one, other in pairwise(rows))]
    runs = _runs(np.array([len(row) for row in rows]), np.array(common), token_budget)
    parts = [_merge(batch, order[start:stop], common[start:stop]) for start, stop in runs]
    yield from sorted(parts, key=lambda part: -part.size)


def _runs(lengths: Ints, common: Ints, token_budget: int) -> list[tuple[int, int]]:
    """Runs of neighbours, as first and one past the last, that read the fewest tokens twice.

    Args:
        lengths: lengths of the sorted rows.
        common: how many tokens each row shares with the row before; 0 for the first.
        token_budget: most tokens of a run of several rows.
    """
    new = np.append(0, np.cumsum(lengths - common))

    def read_twice(stop: int) -> tuple[int, NDArray[np.float64]]:
        first = min(int((new < new[stop] - token_budget).sum()), stop - 1)
        starts = np.arange(first, stop)
        fits = (new[stop] - new[starts] + common[starts] <= token_budget) | (starts == stop - 1)
        return first, np.where(fits, common[starts], np.inf)

    return list(pairwise(cheapest_cuts(len(lengths), read_twice)))


def _merge(batch: Batch, chosen: list[int], common: Sequence[int]) -> MicroBatch:
    """The prefix tree of sorted rows, row by row: each adds what it does not share with the row before."""
    rows: list[Row] = [batch.rows[row] for row in chosen]
    shared = [0, *common[1:]]
    size = sum(map(len, rows)) - sum(shared)
    tokens, ends = np.empty(size, np.int64), np.full(size, size)
    path = np.empty(max(map(len, rows)), np.int64)  # where the tokens of the present row stand
    predicting: list[Ints] = []
    stop = before = 0
    for row, kept in zip(rows, shared, strict=True):
        start, stop = stop, stop + len(row) - kept
        ends[path[kept:before]] = start
        path[kept : len(row)] = np.arange(start, stop)
        tokens[start:stop] = row.tokens[kept:]
        predicting.append(path[np.flatnonzero(row.sampled) - 1])
        before = len(row)
    unique, place = np.unique(np.concatenate(predicting), return_inverse=True)
    return MicroBatch(
        rows=tuple(chosen),
        tokens=tokens[None],
        ends=ends,
        size=size,
        predicting=unique,
        place=place,
        sampled=np.concatenate([row.tokens[row.sampled] for row in rows]),
        targets=join([batch.targets[row] for row in chosen]),
    )
