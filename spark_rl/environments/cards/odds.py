"""The exact chance to win at Blackjack with an endless deck, by dynamic programming over hands.

Invariant: `chances` assumes the play that wins most often from there on. A draw counts as not won, so this is not the
strategy that loses the least money.

A hand is given by its total and by whether an ace in the hand counts eleven (soft). All thirteen ranks are equally likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

__all__ = ["ceiling", "chances", "points"]

_DECK = (*range(1, 10), 10, 10, 10, 10)
"""Values of the thirteen ranks, an ace as 1."""


def points(cards: Sequence[int]) -> tuple[int, bool]:
    """Total of a hand of ranks or values, and whether an ace counts eleven."""
    total = sum(min(card, 10) for card in cards)
    soft = 1 in cards and total <= 11
    return total + 10 * soft, soft


def _add(total: int, soft: bool, value: int) -> tuple[int, bool]:
    """A hand with one more card."""
    total, soft = (total + 11, True) if value == 1 and total <= 10 else (total + value, soft)
    return (total - 10, False) if total > 21 and soft else (total, soft)


@cache
def _dealer(total: int, soft: bool) -> tuple[float, ...]:
    """Chances that the dealer, from a hand, ends with 17, 18, 19, 20, 21, and more than 21."""
    if total >= 17:
        final = min(total, 22) - 17
        return tuple(float(i == final) for i in range(6))
    rows = [_dealer(*_add(total, soft, value)) for value in _DECK]
    return tuple(sum(column) / 13 for column in zip(*rows, strict=True))


@cache
def chances(total: int, soft: bool, shown: int) -> tuple[float, float]:
    """Chance to win by standing, and chance to win by hitting with the best play afterwards.

    Args:
        total: of the player's hand, at most 21.
        soft: whether an ace in it counts eleven.
        shown: value of the dealer's open card, an ace as 1.
    """
    final = _dealer(*points([shown]))
    stand = final[5] + sum(final[i] for i in range(5) if 17 + i < total)
    after = [_add(total, soft, value) for value in _DECK]
    hit = sum(max(chances(*hand, shown)) for hand in after if hand[0] <= 21) / 13
    return stand, hit


def ceiling() -> float:
    """Chance to win a deal with the best play: the highest possible success rate over all deals."""
    hands = [(points([one, two]), shown) for one in _DECK for two in _DECK for shown in _DECK]
    return sum(max(chances(*hand, shown)) for hand, shown in hands) / len(hands)
