"""Pairs of a won and a lost trajectory of one task: what learning by preference learns from.

Invariants
----------
* Both trajectories of a pair are of one task; the first was won in the environment, the second was not.
* Of a failure every token that the policy sampled counts, what was malformed or refused above all. Of a success the slips
  do not: they are shown and not to be learnt.

On disk a file of pairs is one of demonstrations (`data.format`), a won trajectory and then the lost one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from spark_rl.data.demonstrations import kept
from spark_rl.data.format import Demonstration, Origin, save
from spark_rl.evaluation.lookahead import along
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Tree

__all__ = ["Pair", "pair_up", "save_pairs"]


@dataclass(frozen=True)
class Pair:
    """Two trajectories of one task."""

    won: Demonstration
    lost: Demonstration


def pair_up(trees: Iterable[Tree], come_from: Origin, demonstrated: Mapping[str, Demonstration] | None = None) -> list[Pair]:
    """Each failure with a success of its task; failures at tasks without one make no pair.

    Args:
        trees: what the policy played, a tree a task; every leaf is an episode.
        come_from: origin of what it played.
        demonstrated: won demonstrations by task id, with which failures are paired; None takes the policy's own wins of the
            same tree, in turn.
    """
    pairs: list[Pair] = []
    for tree in trees:
        paths = [along(tree, leaf) for leaf in tree.leaves()]
        lost = [path for path in paths if not path.nodes[-1].success]
        if demonstrated is not None:
            wins = [demonstrated[tree.task.id]] if tree.task.id in demonstrated else []
        else:
            wins = kept([path for path in paths if path.nodes[-1].success], come_from)
        if wins:
            pairs += [Pair(wins[i % len(wins)], Demonstration(path, origin=come_from)) for i, path in enumerate(lost)]
    return pairs


def save_pairs(pairs: Iterable[Pair], path: Path, prompt: Prompt) -> None:
    """Write a file of pairs in one go.

    Raises:
        StorageError: it cannot be written; what was there before is untouched.
    """
    save(chain.from_iterable((pair.won, pair.lost) for pair in pairs), path, prompt)
