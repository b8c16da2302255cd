"""A forest that several ranks grow: each grows its share of the trees, and all know all trees.

Invariant: all ranks hold the same trees after an exchange, so the same rule with the same generator plans the same forks on
each of them. A tree does not depend on the rank that grows it, since its seeds come from names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from spark_rl.contracts import Branching, Ranks
from spark_rl.errors import UsageError
from spark_rl.rollout.grown import Known
from spark_rl.rollout.ledger import Ledger
from spark_rl.rollout.tree import GrowingTree
from spark_rl.types import Spent

__all__ = ["dealing", "exchanged", "together"]


def dealing(ledger: Ledger, rule: Branching, ranks: Ranks) -> Callable[[int], int]:
    """What is dealt out to the ranks in turn: trees, or pools where trees compete for leaves while they grow.

    Ranks meet between phases only, so trees of two ranks cannot compete.

    Raises:
        UsageError: with several ranks, trees compete, and there are fewer pools than ranks.
    """
    if not ledger.shared(rule):
        return lambda index: index
    if ranks.count > len(ledger.pools):
        raise UsageError(
            f"tree.cap is {ledger.cap}, more than tree.budget {ledger.shape.budget}, so trees share leaves while they grow; "
            f"with {len(ledger.pools)} pools {ranks.count} ranks cannot: set --tree.pool {ledger.tasks // ranks.count} or "
            "lower, or --tree.cap 0"
        )
    return ledger.pool


def exchanged(own: Sequence[GrowingTree], ledger: Ledger, ranks: Ranks) -> list[Known]:
    """All trees of the forest in order, this rank's own among them; the ledger then counts the leaves of all.

    Args:
        own: the trees that this rank grows.
        ledger: the forest's budget, charged with the rank's own trees so far.
        ranks: the ranks that grow it.
    """
    if ranks.count == 1:
        return list(own)
    known: dict[int, Known] = {}
    for part in ranks.gather([one.record() for one in own]):
        known |= {one.index: one for one in part}
    known |= {one.index: one for one in own}
    ledger.count({one.index: one.tree.opened for one in known.values()})
    return [known[index] for index in sorted(known)]


def together(parts: Iterable[Spent]) -> Spent:
    """The cost of processes that work side by side: counters add, and each phase takes as long as in the slowest."""
    whole, longest = Spent(), dict[str, float]()
    for part in parts:
        whole += part
        longest |= {phase: max(longest.get(phase, 0.0), seconds) for phase, seconds in part.seconds.items()}
    whole.seconds = longest
    return whole
