"""Blackjack against a dealer who draws to 17, from an endless deck.

Invariants
----------
* A card is a function of the deal's number and of the card's place in the deal. Hence all trajectories of a deal, forks
  included, draw the same sequence of cards.
* The expert sees only what the player sees: the hand and one card of the dealer.
* Success is a win; a draw is not a success. Even the best play succeeds in fewer than half of the deals (`ceiling`).
* No deal is in two of train, dev and test: the split of a deal is a function of its first eight cards.

Siblings share their cards on purpose: a fork compares decisions on the same cards. With separate cards for each sibling,
outcomes would differ where decisions do not, and a replay would not lead back to the state of the fork.

| level | train | dev, test |
|---|---|---|
| L0 | hard and soft hands | the same openings (two cards and the dealer's card), other deals |
| L1 | as L0 | openings that no training deal has |
| L2 | hands without an ace | hands with one |
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from spark_rl.common.seeding import derive
from spark_rl.environments.cards.odds import ceiling, chances, points
from spark_rl.environments.games import GameEnvironment, GameExpert
from spark_rl.environments.searching import Decision
from spark_rl.environments.splits import LEVELS, SPLITS, check_names, split_of
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.types import Task

__all__ = ["Blackjack", "Table", "card", "decide"]

_NAMES = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
_CLOSE, _DOUBTFUL = 0.05, 0.15
"""Limits on the difference in the chance to win: below the first a choice is open, below the second a step searches."""


@lru_cache(maxsize=65536)
def card(deal: int, place: int) -> int:
    """A card of a deal, as its rank from 1 (ace) to 13 (king): two for the player, two for the dealer, then as drawn."""
    return derive("blackjack", "card", deal, place) % 13 + 1


@dataclass(frozen=True, slots=True)
class Table:
    """A position of the game."""

    deal: int
    drawn: int = 0
    """Cards that the player has drawn."""
    stood: bool = False
    score: bool = False
    """Pay 1 for a win, 0 for a draw, -1 for a loss, instead of 1 for a win."""

    @property
    def hand(self) -> tuple[int, ...]:
        """The player's cards, by rank."""
        return tuple(card(self.deal, place) for place in (0, 1, *range(4, 4 + self.drawn)))

    @property
    def dealer(self) -> tuple[int, ...]:
        """The dealer's cards: the open card; after the player has stood also the hidden card and the cards drawn to 17."""
        cards = (card(self.deal, 2),)
        if self.stood:
            cards, place = (*cards, card(self.deal, 3)), 4 + self.drawn
            while points(cards)[0] < 17:
                cards, place = (*cards, card(self.deal, place)), place + 1
        return cards

    @property
    def done(self) -> bool:
        """Whether the player has stood or has more than 21."""
        return self.stood or points(self.hand)[0] > 21

    @property
    def gain(self) -> int:
        """1 for a win, -1 for a loss, 0 for a draw and before the end."""
        mine = points(self.hand)[0]
        if mine > 21:
            return -1
        if not self.stood:
            return 0
        theirs = points(self.dealer)[0]
        return 1 if theirs > 21 or mine > theirs else -(mine < theirs)

    @property
    def won(self) -> bool:
        """Whether the player has won."""
        return self.gain > 0

    @property
    def reward(self) -> float:
        """See `Blackjack.reward`."""
        return float(self.gain if self.score else self.won)

    idle = 0.0

    @property
    def progress(self) -> Mapping[str, float]:
        """Empty: this game measures only the outcome."""
        return {}

    @property
    def text(self) -> str:
        """The cards of both hands that the player can see."""
        shown = f"You have {_cards_text(self.hand)}. The dealer has {_cards_text(self.dealer)}"
        if not self.done:
            return f"{shown} and a hidden card."
        return f"{shown}. You {('lose', 'draw', 'win')[self.gain + 1]}."

    def actions(self) -> tuple[str, ...]:
        """`hit` and `stand`."""
        return () if self.done else ("hit", "stand")

    def after(self, action: str) -> Table | None:
        """The table with one more card, or after the dealer's turn; None for an action that is not possible."""
        if action not in self.actions():
            return None
        return Table(self.deal, self.drawn + (action == "hit"), action == "stand", self.score)


def _cards_text(cards: tuple[int, ...]) -> str:
    total, soft = points(cards)
    return f"{', '.join(_NAMES[rank - 1] for rank in cards)} ({'soft ' * soft}{total})"


def decide(table: Table, _: random.Random) -> Decision:
    """The action with the higher chance to win. The choice is open if both chances are nearly equal."""
    total, soft = points(table.hand)
    stand, hit = chances(total, soft, min(table.dealer[0], 10))
    action = "hit" if hit > stand else "stand"
    reason = f"With {'soft ' * soft}{total} I win more often if I {action}."
    return Decision(action, reason, abs(hit - stand) < _DOUBTFUL, abs(hit - stand) < _CLOSE)


@dataclass(frozen=True)
class Blackjack:
    """Hit or stand against a dealer who draws to 17; a win is success, a draw is none."""

    reward: Literal["success", "score"] = "success"
    """`success`: 1 for a win. `score`, as in the original: 1 for a win, 0 for a draw, -1 for a loss."""
    train_tasks: int = 2000
    dev_tasks: int = 60
    test_tasks: int = 120

    def __post_init__(self) -> None:
        if self.reward not in ("success", "score"):
            raise unknown_name("env.reward", str(self.reward), ("success", "score"))
        at_least("env", self, train_tasks=1, dev_tasks=1, test_tasks=1)

    @property
    def name(self) -> str:
        """`blackjack`."""
        return "blackjack"

    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        """The deals of a level and split; L1 trains on those of L0.

        Raises:
            UsageError: unknown level or split.
        """
        check_names(level, split)
        return _tasks(self, "L0" if (level, split) == ("L1", "train") else level, split)

    def task(self, task_id: str) -> Task:
        """The task with this id (`L0/train/17`).

        Raises:
            UsageError: there is no such task.
        """
        level, _, rest = task_id.partition("/")
        split, _, number = rest.partition("/")
        known = level in LEVELS and split in SPLITS and (level, split) != ("L1", "train")
        if known and number.isdecimal() and str(int(number)) == number and int(number) < self._count(split):
            deal = _deal(level, split, int(number))
            kind = "soft" if 1 in Table(deal).hand else "hard"
            return Task(self.name, task_id, "beat the dealer without going over 21: hit or stand", kind, {"deal": deal})
        raise UsageError(f'blackjack has no task "{task_id}"; `spark-rl env tasks blackjack` lists them')

    def make(self) -> GameEnvironment[Table]:
        """A new environment."""
        return GameEnvironment(self.start)

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> GameExpert[Table]:
        """A policy that takes the action with the higher chance to win; it wins fewer than half of the deals."""
        return GameExpert(self.start, decide, tags)

    def demonstrable(self, tasks: Iterable[Task], horizon: int) -> Iterator[Task]:
        """Deals that the expert wins. Each deal is played to find out, because the expert never looks ahead."""
        return (task for task in tasks if self._played(task, horizon).won)

    def start(self, task: Task) -> Table:
        """The table when the cards are dealt.

        Raises:
            UsageError: the task is not from this world.
        """
        deal = task.data.get("deal")
        if task.environment != self.name or not isinstance(deal, int):
            raise UsageError(f"task {task.id} of {task.environment} is none of blackjack's")
        return Table(deal, score=self.reward == "score")

    def about(self) -> str:
        """The success rate of the best play, for `spark-rl env check` to print."""
        return f"the best play wins {ceiling():.2%} of all deals"

    def _played(self, task: Task, horizon: int) -> Table:
        """The table at the end of the expert's play."""
        table = self.start(task)
        for _ in range(horizon):
            table = table.after(decide(table, random.Random(0)).action) or table
            if table.done:
                break
        return table

    def _count(self, split: str) -> int:
        return int(getattr(self, f"{split}_tasks"))


@lru_cache(maxsize=16384)
def _deal(level: str, split: str, number: int) -> int:
    """The first deal drawn for this number that belongs to this level and split."""
    attempt = 0
    while True:
        deal = derive("blackjack", "deal", level, split, number, attempt)
        first = tuple(card(deal, place) for place in range(8))
        mine, theirs = sorted(min(rank, 10) for rank in first[:2]), min(first[2], 10)
        wanted = 1 in mine if level == "L2" and split != "train" else level != "L2" or 1 not in mine
        withheld = derive("blackjack", "opening", *mine, theirs) % 5 == 0
        if wanted and withheld == (level == "L1") and split_of("blackjack", first) == split:
            return deal
        attempt += 1


@lru_cache(maxsize=64)
def _tasks(world: Blackjack, level: str, split: str) -> tuple[Task, ...]:
    return tuple(world.task(f"{level}/{split}/{number}") for number in range(int(getattr(world, f"{split}_tasks"))))
