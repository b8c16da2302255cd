"""The released code's credit: statistics over step rows, a shared step repeated for each trajectory through it.

Invariant: equals GRPO over the rows that the released SPARK and verl-agent train (jinyangwu/SPARK at 96e80aa), their
random copies to fill groups and batches left out.

A failure of thirty steps enters the mean thirty times, a success of ten only ten times, so that a group of as many wins
as failures is far from balanced; and in a failed group the rare penalties are all there is to normalise. Here to compare
with; `GroupMean` takes its statistics over trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

from spark_rl.advantage.credit import deviations, spread_rows
from spark_rl.types import Credit, Tree

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """Score of a row: its trajectory's return less the row's own penalty. A = (score - mean) / std over the group's rows."""

    malformed: float = 0.1
    """Penalty of a row that is not well-formed, taken off before the statistics; then `Rewards.malformed` and
    `Rewards.inadmissible` belong at 0, or a step pays twice."""

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        paths = [tree.trajectory(leaf) for leaf in tree.leaves()]
        scores = [
            [total - self.malformed * (not tree.nodes[node].well_formed) for node in path]
            for path, total in zip(paths, tree.returns(), strict=True)
        ]
        flat = deviations([score for row in scores for score in row], std=True)
        ends = list(accumulate(map(len, paths), initial=0))
        return spread_rows(tree, [flat[start:end] for start, end in pairwise(ends)])
