"""Rewards for how a step reasons: RLVMR (arXiv 2507.22844), in its own four modes or in SPARK's two.

A step gets the reward r = 1 where it did what its mode announces, else 0 (as in the released configuration of RLVMR). It is
compared with the steps of its group in the same mode m:

    A(t) = w (r(t) - mean_m r) / (std_m r + 1e-6)

| `modes rlvmr` | `modes spark` | r = 1 when |
|---|---|---|
| planning | think | its trajectory succeeds |
| explore | explore | no earlier well-formed step of its trajectory took its action |
| reflection | think right after a refused or malformed step | it follows such a step, and its action is another one |
| monitor | – | never: no credit, as for a step that is not well-formed |

This estimator is the step term alone; RLVMR is the `Sum` of this term and `GroupMean`. Two details differ from the released
code. A mode that occurs once in a group gets no credit, since there is no other step to compare with (released code: the
raw reward). A first step that reflects gets the reward 0 (released code: 1).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from spark_rl.advantage.credit import deviations, spread_rows
from spark_rl.types import Credit, Tree

__all__ = ["Tags"]

_Tag = Literal["planning", "explore", "reflection"]


@dataclass(frozen=True)
class Tags:
    """A = weight * (tag reward - mean) / std over the tree's rows with the same tag. A row is a step of one trajectory.

    The statistics are over rows because the reward of a plan depends on the trajectory. A shared step's weight is the number
    of leaves below the step.
    """

    weight: float = 0.5
    """Factor of the credit (0.5 in the released configuration)."""
    std: bool = True
    """Divide by the unbiased standard deviation of the tag's rows (+ 1e-6)."""

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        rows: list[list[float]] = []
        groups: defaultdict[_Tag, list[tuple[int, int]]] = defaultdict(list)  # tag -> (trajectory, step)
        for number, leaf in enumerate(tree.leaves()):
            judged = _judge(tree, leaf)
            rows.append([reward for _, reward in judged])
            for step, (tag, _) in enumerate(judged):
                if tag is not None:
                    groups[tag].append((number, step))
        for group in groups.values():
            away = deviations([rows[number][step] for number, step in group], std=self.std)
            for (number, step), value in zip(group, away, strict=True):
                rows[number][step] = self.weight * value
        return spread_rows(tree, rows)


def _judge(tree: Tree, leaf: int) -> list[tuple[_Tag | None, float]]:
    """Tag and reward of each step of a trajectory; a step without a tag has reward 0."""
    judged: list[tuple[_Tag | None, float]] = []
    taken: set[str] = set()
    refused, before = False, ""
    for node in (tree.nodes[index] for index in tree.trajectory(leaf)):
        if not node.well_formed or node.mode == "monitor":
            judged.append((None, 0.0))
        elif node.mode == "explore":
            judged.append(("explore", float(node.action not in taken)))
        elif node.mode == "reflection" or (node.mode == "think" and refused):
            judged.append(("reflection", float(refused and node.action != before)))
        else:
            judged.append(("planning", float(tree.nodes[leaf].success)))
        if node.well_formed:
            taken.add(node.action)
        refused, before = not (node.well_formed and node.admissible), node.action
    return judged
