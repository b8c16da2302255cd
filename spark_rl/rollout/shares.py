"""A forest that several ranks grow: each grows its share of the trees, and all know all trees.

Invariant: all ranks hold the same trees after an exchange, so the same rule with the same generator plans the same forks on
each of them. A tree does not depend on the rank that grows it, since its seeds come from names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spark_rl.contracts import Branching, Ranks
from spark_rl.errors import UsageError
from spark_rl.rollout.ledger import Ledger
from spark_rl.types import Spent, Tree

__all__ = ["Grown", "Known", "check", "exchanged", "total"]


class Known(Protocol):
    """What every rank knows of a tree."""

    @property
    def index(self) -> int:
        """Its place in the forest."""
        ...

    @property
    def tree(self) -> Tree:
        """Its record so far."""
        ...

    @property
    def rounds(self) -> int:
        """Finished rounds."""
        ...

    @property
    def failed(self) -> str:
        """Why it was dropped; empty for a tree that was not."""
        ...

    def may_fork(self, node: int) -> bool:
        """Whether a step may be continued."""
        ...


@dataclass(frozen=True)
class Grown:
    """A tree of another rank."""

    index: int
    tree: Tree
    rounds: int
    failed: str

    def may_fork(self, node: int) -> bool:
        """Whether a step may be continued."""
        return not self.tree.nodes[node].done and self.tree.nodes[node].depth < self.tree.horizon


def check(ledger: Ledger, rule: Branching, ranks: Ranks) -> None:
    """Refuse rules whose trees compete for leaves step by step: ranks meet between phases only.

    Raises:
        UsageError: with several ranks, trees share leaves while they grow.
    """
    if ranks.count > 1 and ledger.shared(rule):
        raise UsageError(
            f"tree.cap is {ledger.cap}, more than tree.budget {ledger.shape.budget}, so trees share leaves while they grow, "
            f"which {ranks.count} ranks cannot: set --tree.cap 0 or --scale.ranks 1"
        )


def exchanged(own: Sequence[Known], ledger: Ledger, trees: int, ranks: Ranks) -> list[Known]:
    """All trees of the forest in order, this rank's own among them; the ledger then counts the leaves of all.

    Args:
        own: the trees that this rank grows.
        ledger: the forest's budget, charged with the rank's own trees so far.
        trees: number of trees in the forest.
        ranks: the ranks that grow it.
    """
    if ranks.count == 1:
        return list(own)
    known: dict[int, Known] = {}
    for part in ranks.gather([Grown(one.index, one.tree, one.rounds, one.failed) for one in own]):
        known |= {one.index: one for one in part}
    known |= {one.index: one for one in own}
    if not ledger.counts_active:
        ledger.left = trees * ledger.shape.budget - sum(one.tree.opened for one in known.values())
    return [known[index] for index in sorted(known)]


def total(spent: Spent, ranks: Ranks) -> Spent:
    """The cost of all ranks: counters add, and each phase takes as long as on the slowest rank."""
    parts: Iterable[Spent] = ranks.gather(spent)
    whole, longest = Spent(), dict[str, float]()
    for part in parts:
        whole += part
        longest |= {phase: max(longest.get(phase, 0.0), seconds) for phase, seconds in part.seconds.items()}
    whole.seconds = longest
    return whole
