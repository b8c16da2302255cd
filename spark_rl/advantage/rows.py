"""The released code's credit: statistics over step rows, where a shared step has a row for each trajectory through it.

Invariant: the credit equals GRPO over the rows that the released SPARK and verl-agent train (jinyangwu/SPARK at 96e80aa),
without the random copies that fill up their groups and batches.

A failure of thirty steps enters the mean thirty times, a success of ten steps only ten times. So a group with as many wins
as failures is far from balanced, and in a failed group the rare penalties are the only signal. This estimator is here for
comparison; `GroupMean` takes its statistics over trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

from spark_rl.advantage.credit import deviations, spread_rows
from spark_rl.types import Credit, Tree

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """A = (score - mean) / std over the group's rows. A row's score is the return of its trajectory less its own penalty."""

    malformed: float = 0.1
    """Penalty of a row that is not well-formed, subtracted before the statistics. Set `Rewards.malformed` and
    `Rewards.inadmissible` to 0 with this estimator, or a step is penalised twice."""

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
