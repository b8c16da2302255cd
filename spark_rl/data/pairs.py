"""Pairs of a won and a lost trajectory of one task, for learning from preferences.

Invariants
----------
* Both trajectories of a pair have the same task; the first was won in the environment, the second was not.
* Every token that the policy sampled in the lost trajectory is trained on, malformed and refused steps above all. In the
  won trajectory, slips are in the prompts and are not trained on.

A file of pairs is a file of demonstrations (`data.format`): a won trajectory, then the lost one, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from spark_rl.data.demonstrations import as_demonstrations
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


def pair_up(trees: Iterable[Tree], origin: Origin, demonstrated: Mapping[str, Demonstration] | None = None) -> list[Pair]:
    """Pair each failure with a success at its task; a failure at a task without success makes no pair.

    Args:
        trees: the policy's episodes, one tree for each task; every leaf is an episode.
        origin: origin of the policy's trajectories.
        demonstrated: won demonstrations by task id, which are paired with the failures; None pairs them with the policy's
            own successes of the same tree, in turn.
    """
    pairs: list[Pair] = []
    for tree in trees:
        paths = [along(tree, leaf) for leaf in tree.leaves()]
        lost = [path for path in paths if not path.nodes[-1].success]
        if demonstrated is not None:
            wins = [demonstrated[tree.task.id]] if tree.task.id in demonstrated else []
        else:
            wins = as_demonstrations([path for path in paths if path.nodes[-1].success], origin)
        if wins:
            pairs += [Pair(wins[i % len(wins)], Demonstration(path, origin=origin)) for i, path in enumerate(lost)]
    return pairs


def save_pairs(pairs: Iterable[Pair], path: Path, prompt: Prompt) -> None:
    """Write a file of pairs; the file appears whole or not at all.

    Raises:
        StorageError: the file cannot be written; an earlier file is untouched.
    """
    save(chain.from_iterable((pair.won, pair.lost) for pair in pairs), path, prompt)
