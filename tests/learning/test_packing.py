"""Micro-batches: padded rows, and prefix trees against a plain reading of their rows."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any, get_args

import numpy as np
import pytest
from grown import grown, shapes
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.advantage.group import GroupMean
from spark_rl.errors import UsageError
from spark_rl.learning import packing
from spark_rl.learning.batch import Batch, Row, pack
from spark_rl.learning.packing import MicroBatch, Packing, microbatches
from spark_rl.objective.loss import Targets
from spark_rl.objective.rewards import Rewards


def of_rows(*rows: list[int], sampled: int = 1) -> Batch:
    """Rows whose last tokens are sampled; `old` numbers the sampled tokens of the batch."""
    made, targets, count = [], [], 0
    for row in rows:
        marks = np.zeros(len(row), np.bool_)
        marks[-min(sampled, len(row) - 1) :] = True
        made.append(Row(0, (0,), np.array(row), marks))
        numbers = np.arange(count, count := count + int(marks.sum()), dtype=np.float64)
        targets.append(Targets(*[numbers] * 6))
    return Batch(tuple(made), tuple(targets))


def forest(forks: list[list[int]], append: bool, seed: int, vocabulary: int = 16) -> Batch:
    trees = [
        grown(shape, append, seed + number, vocabulary=vocabulary, head=(1, 2, 1)) for number, shape in enumerate(forks)
    ]
    return pack(trees, [Rewards().credit(tree, GroupMean()) for tree in trees])


forests = st.builds(
    forest, st.lists(shapes(), min_size=1, max_size=3), st.booleans(), st.integers(0, 99), st.sampled_from([2, 3, 16])
)


def read(micro: MicroBatch, position: int) -> list[int]:
    """The tokens from the start of a sequence to a position of the flattened tokens."""
    if micro.ends is None:
        width = micro.tokens.shape[1]
        return micro.tokens.ravel()[position - position % width : position + 1].tolist()
    return [int(token) for u, token in enumerate(micro.tokens[0]) if u <= position < micro.ends[u]]


def check(batch: Batch, micro: MicroBatch) -> None:
    """Every sampled token is predicted from the tokens before it, and has its own target."""
    expected = [
        (row.tokens[:place].tolist(), row.tokens[place], old)
        for row, targets in ((batch.rows[index], batch.targets[index]) for index in micro.rows)
        for place, old in zip(np.flatnonzero(row.sampled), targets.old, strict=True)
    ]
    positions = micro.predicting[micro.place]
    found = [
        (read(micro, position), token, old)
        for position, token, old in zip(positions, micro.sampled, micro.targets.old, strict=True)
    ]
    assert found == expected
    assert len(set(micro.predicting)) == len(micro.predicting) == len(set(micro.place))


@given(forests, st.sampled_from([1, 17, 40, 10**6]), st.sampled_from(get_args(Packing)))
def test_every_row_is_read_once_within_the_budget(batch, budget, way):
    micros = list(microbatches(batch, budget, way))
    assert sorted(row for micro in micros for row in micro.rows) == list(range(len(batch.rows)))
    for micro in micros:
        assert micro.tokens.size <= budget or len(micro.rows) == 1
        check(batch, micro)
    shown = [micro.size if way == "tree" else micro.tokens.shape[1] for micro in micros]
    assert shown == sorted(shown, reverse=True), "the largest comes first"


@given(forests)
def test_a_tree_has_each_beginning_once(batch):
    (micro,) = microbatches(batch, 10**6, "tree")
    beginnings = {tuple(row.tokens[: stop + 1]) for row in batch.rows for stop in range(len(row))}
    assert micro.size == len(beginnings)
    assert {tuple(read(micro, position)) for position in range(micro.size)} == beginnings


def test_a_tree_by_hand():
    """The first row is the beginning of the second, the third leaves it after two tokens, the last one is there twice."""
    (micro,) = microbatches(of_rows([1, 2, 3], [1, 2, 3, 4], [1, 2, 5], [300, 5], [300, 5]), 100, "tree")
    assert micro.ends is not None
    assert micro.tokens.tolist() == [[1, 2, 3, 4, 5, 300, 5]]
    assert micro.ends.tolist() == [5, 5, 4, 4, 5, 7, 7]
    assert micro.rows == (0, 1, 2, 3, 4)
    assert micro.sampled.tolist() == [3, 4, 5, 5, 5]
    assert micro.predicting.tolist() == [1, 2, 5]
    assert micro.place.tolist() == [0, 1, 0, 2, 2]
    assert micro.targets.old.tolist() == [0, 1, 2, 3, 4]


def test_padded_rows_by_hand():
    first, second = microbatches(of_rows([1, 2, 3], [1, 2], [4, 5, 6, 7], sampled=2), 8, "rows")
    assert (first.rows, second.rows) == ((2, 0), (1,))
    assert first.tokens.tolist() == [[4, 5, 6, 7], [1, 2, 3, 0]]
    assert (first.size, second.size) == (7, 2)
    assert first.predicting.tolist() == [1, 2, 4, 5]
    assert first.sampled.tolist() == [6, 7, 2, 3]
    assert first.ends is None


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=8), st.integers(1, 20))
def test_no_other_cuts_read_fewer_tokens(rows, budget):
    lengths = np.array([length for length, _ in rows])
    most = [min(pair) for pair in pairwise(lengths)]
    common = np.array([0, *(min(shared, bound) for (_, shared), bound in zip(rows[1:], most, strict=True))])

    def tokens(cuts: list[int]) -> float:
        total = 0
        for start, stop in pairwise(cuts):
            size = int(lengths[start:stop].sum() - common[start + 1 : stop].sum())
            total += size if size <= budget or stop == start + 1 else 10**9
        return total

    found = packing._runs(lengths, common, budget)
    cuts = [0, *(stop for _, stop in found)]
    assert [start for start, _ in found] == cuts[:-1]
    ways = ([0, *inner, len(rows)] for size in range(len(rows)) for inner in combinations(range(1, len(rows)), size))
    assert tokens(cuts) == min(map(tokens, ways)) < 10**9


@pytest.mark.parametrize("way", get_args(Packing))
def test_nothing_gives_nothing_and_a_budget_below_one_is_refused(way):
    empty: Any = pack([], [])
    assert list(microbatches(empty, 10, way)) == []
    with pytest.raises(UsageError, match="token_budget is 0"):
        microbatches(empty, 0, way)
