"""From trees and their credit to rows of tokens that a model can be trained on.

Invariants
----------
* Every node is trained in exactly one row: the tokens of its completion are marked as sampled once, whatever the credit.
* Training uses the tokens that were sampled. A row is built from the recorded ids, and two steps share a row only when the
  later prompt starts with the earlier prompt and completion, id for id.
* Mini-batches are whole trees.

A node extends its parent's row if its prompt extends the parent's prompt and completion, and if the row still ends with the
parent. Every other node starts a new row with its full prompt. So a context that writes a new prompt for each step gives one
row per node. A context that only appends gives one row per leaf, in which the steps that another row trains are plain
context. This module knows nothing else about contexts. `packing` turns rows into what goes through the model.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.objective.loss import Targets
from spark_rl.types import Credit, Node, Tree

__all__ = ["Batch", "Row", "join", "pack", "packed_sequences"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Row:
    """One sequence of tokens."""

    tree: int
    """Index of the row's tree among the packed trees."""
    nodes: tuple[int, ...]
    """The tree's nodes that this row trains, in order."""
    tokens: NDArray[np.int64]
    """Token ids, [length]."""
    sampled: NDArray[np.bool_]
    """Marks the tokens that the policy sampled, [length]; the first token is never marked."""

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows, and the training signal of their sampled tokens."""

    rows: tuple[Row, ...]
    targets: tuple[Targets[Floats], ...]
    """One for each row, arrays [sampled tokens of the row]."""

    @cached_property
    def tokens(self) -> int:
        """Number of tokens of all rows."""
        return sum(map(len, self.rows))

    @cached_property
    def sampled(self) -> int:
        """Number of sampled tokens; a token counts once, however many trajectories share it."""
        return sum(len(targets.old) for targets in self.targets)

    def flat(self) -> Targets[Floats]:
        """The targets of all rows, one after the other."""
        return join(self.targets)

    def select(self, rows: Sequence[int]) -> Batch:
        """The batch of these rows."""
        return Batch(tuple(self.rows[row] for row in rows), tuple(self.targets[row] for row in rows))

    def minibatches(self, count: int, rng: random.Random | None = None) -> list[Batch]:
        """Split into at most `count` batches of whole trees, with about equal numbers of tokens.

        Trees go one by one to the batch with the fewest tokens so far, in their own order or in an order shuffled by `rng`.
        So two batches differ by at most the largest tree. If there are fewer trees than `count`, each tree is a batch.

        Raises:
            UsageError: `count` is below 1.
        """
        if count < 1:
            raise UsageError(f"minibatches is {count}: it must be at least 1")
        trees: dict[int, list[int]] = {}
        for index, row in enumerate(self.rows):
            trees.setdefault(row.tree, []).append(index)
        groups = list(trees.values())
        if rng is not None:
            rng.shuffle(groups)
        chosen: list[list[int]] = [[] for _ in range(min(count, len(groups)))]
        load = [0] * len(chosen)
        for group in groups:
            lightest = load.index(min(load))
            chosen[lightest] += group
            load[lightest] += sum(len(self.rows[row]) for row in group)
        return [self.select(rows) for rows in chosen]


def pack(trees: Sequence[Tree], credits: Sequence[Credit]) -> Batch:
    """Rows of the trees, each sampled token with its node's credit.

    Raises:
        PolicyFailure: a node has no prompt, no completion, or not exactly one log-probability for each sampled token.
    """
    rows = packed_sequences(trees)
    return Batch(tuple(rows), tuple(_targets(trees[row.tree], credits[row.tree], row) for row in rows))


def packed_sequences(trees: Sequence[Tree], silent: Sequence[Collection[int]] = ()) -> list[Row]:
    """Rows of the trees without credit, for fine-tuning on demonstrations. Reinforcement learning uses the same rows.

    Args:
        trees: the trees.
        silent: for each tree, the nodes whose completions are context only; none by default.

    Raises:
        PolicyFailure: a node has no prompt or no completion.
    """
    return [row for index, tree in enumerate(trees) for row in _merge(tree, index, silent[index] if silent else ())]


def _merge(tree: Tree, index: int, silent: Collection[int]) -> list[Row]:
    """Walk the nodes, parents first, and append each to its parent's row or start a new one."""
    nodes: list[list[int]] = []
    tokens: list[list[int]] = []
    sampled: list[list[bool]] = []
    row_of: list[int] = []  # the row of each node
    for number, node in enumerate(tree.nodes):
        if not node.prompt or not node.completion:
            raise PolicyFailure(
                f'task "{tree.task.id}", step {list(node.path)} has no {"completion" if node.prompt else "prompt"} tokens '
                "to train on; use a policy that works with token ids, such as a local model"
            )
        row = row_of[node.parent] if node.parent >= 0 else -1
        if row < 0 or nodes[row][-1] != node.parent or not _extends(node, tree.nodes[node.parent]):
            row = len(nodes)
            nodes.append([])
            tokens.append([])
            sampled.append([])
        row_of.append(row)
        nodes[row].append(number)
        tokens[row] += (*node.prompt[len(tokens[row]) :], *node.completion)
        sampled[row] += [False] * (len(tokens[row]) - len(sampled[row]) - len(node.completion))
        sampled[row] += [number not in silent] * len(node.completion)
    return [
        Row(index, tuple(n), np.array(t, np.int64), np.array(s, np.bool_))
        for n, t, s in zip(nodes, tokens, sampled, strict=True)
    ]


def _extends(node: Node, parent: Node) -> bool:
    """Whether the node's prompt starts with its parent's prompt and completion."""
    before = (*parent.prompt, *parent.completion)
    return tuple(node.prompt[: len(before)]) == before


def _targets(tree: Tree, credit: Credit, row: Row) -> Targets[Floats]:
    nodes = [tree.nodes[number] for number in row.nodes]
    for node in nodes:
        if len(node.logprobs) != len(node.completion):
            raise PolicyFailure(
                f'task "{tree.task.id}", step {list(node.path)} has {len(node.logprobs)} log-probabilities for '
                f"{len(node.completion)} sampled tokens; use a policy that gives one for each token"
            )
    lengths = [len(node.completion) for node in nodes]

    def each(values: Sequence[float]) -> Floats:
        return np.repeat(np.array([values[number] for number in row.nodes], np.float64), lengths)

    logprobs = np.array([value for node in nodes for value in node.logprobs], np.float64)
    return Targets(
        positive=each(credit.positive),
        negative=each(credit.negative),
        weight=each(credit.weight),
        length=np.repeat(np.array(lengths, np.float64), lengths),
        sampling=logprobs,
        old=logprobs,
    )


def join(parts: Sequence[Targets[Floats]]) -> Targets[Floats]:
    """The targets of several rows, one after the other."""
    columns: Iterator[tuple[Floats, ...]] = zip(*parts, strict=True)
    return Targets(*(np.concatenate(column) for column in columns))
