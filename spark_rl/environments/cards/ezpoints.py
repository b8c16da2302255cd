"""EZPoints: write a formula with all cards of a hand, symbol by symbol, whose value is the target.

Invariants
----------
* A formula is a number, then operators and numbers in turn; each card is used once. `=` is admissible when all cards are
  used, and ends the game. So every formula can be calculated, and every formula ends.
* A formula is never evaluated as code: it is calculated as a sum of products.
* Every task can be won. No problem (cards in any order, target) is in two of train, dev and test.

| level | train | dev, test |
|---|---|---|
| L0 | four fifths of the targets | the same targets, other cards |
| L1 | as L0 | targets that no training task has |
| L2 | as L0 | the targets of training with one more card |

A task's id is its problem: `3,7,5/22`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, permutations
from math import prod
from typing import Literal

from spark_rl.common.seeding import derive
from spark_rl.environments.games import GameEnvironment, GameExpert
from spark_rl.environments.searching import Decision
from spark_rl.environments.splits import check_names, split_of
from spark_rl.errors import UsageError, at_least
from spark_rl.types import Task

__all__ = ["EZPoints", "Formula", "decide", "value"]

_OPERATORS = ("+", "*")
_HIGHEST = 10
"""Value of the highest card: jacks, queens and kings count ten."""


def value(symbols: Sequence[str]) -> int:
    """The value of a formula of numbers, + and *."""
    return sum(prod(map(int, term.split("*"))) for term in "".join(symbols).split("+"))


@lru_cache(maxsize=65536)
def _can_win(symbols: tuple[str, ...], left: tuple[int, ...], target: int) -> bool:
    """Whether the formula so far can be completed to the target. `left` is sorted."""
    if symbols and symbols[-1] not in _OPERATORS:
        if not left:
            return value(symbols) == target
        return any(_can_win((*symbols, operator), left, target) for operator in _OPERATORS)
    return any(_can_win((*symbols, str(card)), _without(left, card), target) for card in set(left))


def _without(cards: tuple[int, ...], card: int) -> tuple[int, ...]:
    place = cards.index(card)
    return cards[:place] + cards[place + 1 :]


@dataclass(frozen=True, slots=True)
class Formula:
    """A position of the game."""

    cards: tuple[int, ...]
    target: int
    symbols: tuple[str, ...] = ()
    """The formula so far."""

    @property
    def left(self) -> tuple[int, ...]:
        """Cards not used yet, in the order of the hand."""
        left = self.cards
        for symbol in self.symbols:
            left = _without(left, int(symbol)) if symbol.isdecimal() else left
        return left

    @property
    def done(self) -> bool:
        """Whether the formula is closed."""
        return self.symbols[-1:] == ("=",)

    @property
    def won(self) -> bool:
        """Whether the formula is closed and its value is the target."""
        return self.done and value(self.symbols[:-1]) == self.target

    @property
    def winnable(self) -> bool:
        """Whether some sequence of actions wins from here."""
        return self.won if self.done else _can_win(self.symbols, tuple(sorted(self.left)), self.target)

    @property
    def reward(self) -> float:
        """1 for a formula that makes the target, else 0."""
        return float(self.won)

    idle = 0.0

    @property
    def progress(self) -> Mapping[str, float]:
        """Empty: this game measures only the outcome."""
        return {}

    @property
    def text(self) -> str:
        """Cards, target and formula; at the end also the formula's value."""
        hand = f"Cards: {', '.join(map(str, self.cards))}. Target: {self.target}."
        if not self.symbols:
            return f"{hand} Formula: empty."
        total = f" {value(self.symbols[:-1])}" if self.done else ""
        return f"{hand} Formula: {' '.join(self.symbols)}{total}."

    def actions(self) -> tuple[str, ...]:
        """Numbers of cards left where a number belongs, else operators, or `=` when no card is left."""
        if self.done:
            return ()
        if not self.symbols or self.symbols[-1] in _OPERATORS:
            return tuple(dict.fromkeys(map(str, self.left)))
        return _OPERATORS if self.left else ("=",)

    def after(self, action: str) -> Formula | None:
        """The formula with one more symbol; None for an action that is not possible."""
        if action not in self.actions():
            return None
        return Formula(self.cards, self.target, (*self.symbols, action))


def decide(formula: Formula, rng: random.Random) -> Decision:
    """A symbol after which the target can still be made; several such symbols are drawn at random.

    The step explores (`Decision.search`) if another symbol would lose. If the symbol is an operator, such a step is also an
    open choice, because operators shape the formula.
    """
    actions = formula.actions()
    good = [action for action in actions if (after := formula.after(action)) is not None and after.winnable]
    if not good:
        return Decision(rng.choice(actions), f"This cannot make {formula.target} any more.")
    action = rng.choice(good)
    if action == "=":
        return Decision(action, f"The formula makes {formula.target}.")
    plan = formula.after(action)
    while plan is not None and not plan.done:
        steps = (plan.after(symbol) for symbol in plan.actions())
        plan = next((step for step in steps if step is not None and step.winnable), None)
    whole = " ".join(plan.symbols) if plan is not None else action
    choice = len(good) < len(actions)
    return Decision(action, f"{whole} {formula.target}.", choice, choice and action in _OPERATORS)


@dataclass(frozen=True)
class EZPoints:
    """Write a formula of one's cards with + and *, symbol by symbol, that makes the target."""

    cards: int = 3
    """Cards of a hand; L2 has one more card. The original has 2."""
    targets: tuple[int, int] = (5, 30)
    """Least and greatest target. The original has only 12."""
    train_tasks: int = 2000
    """Most tasks of the training split."""
    dev_tasks: int = 60
    test_tasks: int = 120

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        if not 2 <= self.cards <= 4:
            raise UsageError(f"env.cards is {self.cards}: it must lie between 2 and 4")
        if len(self.targets) != 2 or not 1 <= self.targets[0] <= self.targets[1]:
            raise UsageError(f"env.targets is {self.targets}: give the least and the greatest, 1 or more")
        at_least("env", self, train_tasks=1, dev_tasks=1, test_tasks=1)

    @property
    def name(self) -> str:
        """`ezpoints`."""
        return "ezpoints"

    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        """The tasks of a level and split, in a fixed shuffled order. Training has all orders of a hand, dev and test one.

        Raises:
            UsageError: unknown level or split, or no task fits the options.
        """
        check_names(level, split)
        tasks = _tasks(self, "L0" if split == "train" else level, split)
        if not tasks:
            raise UsageError(f"env.targets {self.targets[0]} to {self.targets[1]} leave {level}/{split} nothing: widen them")
        return tasks[: int(getattr(self, f"{split}_tasks"))]

    def task(self, task_id: str) -> Task:
        """The task with this id (`3,7,5/22`), which need not be in any level.

        Raises:
            UsageError: the id is malformed, or the task cannot be won.
        """
        hand, _, target = task_id.partition("/")
        words = hand.split(",")
        if all(word.isdecimal() and str(int(word)) == word for word in (*words, target)) and 2 <= len(words) <= 5:
            formula = Formula(tuple(map(int, words)), int(target))
            if all(1 <= card <= _HIGHEST for card in formula.cards) and formula.winnable:
                instruction = f"use each card once, with + and *, to make {target}; close the formula with ="
                return Task(self.name, task_id, instruction, f"{len(words)} cards")
        raise UsageError(f'ezpoints has no task "{task_id}"; `spark-rl env tasks ezpoints` lists some')

    def make(self) -> GameEnvironment[Formula]:
        """A new environment."""
        return GameEnvironment(self.start)

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> GameExpert[Formula]:
        """A policy that searches all formulas."""
        return GameExpert(self.start, decide, tags)

    def start(self, task: Task) -> Formula:
        """The hand of a task, with an empty formula.

        Raises:
            UsageError: the task is not from this world.
        """
        if task.environment != self.name:
            raise UsageError(f"task {task.id} of {task.environment} is none of ezpoints'")
        hand, _, target = self.task(task.id).id.partition("/")
        return Formula(tuple(map(int, hand.split(","))), int(target))


def _problems(cards: int, least: int, greatest: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """All sorted hands, each with every target that it can make."""
    for hand in combinations_with_replacement(range(1, _HIGHEST + 1), cards):
        for total in sorted(_totals(hand)):
            if least <= total <= greatest:
                yield hand, total


@lru_cache(maxsize=4096)
def _totals(cards: tuple[int, ...]) -> frozenset[int]:
    """All values of sums of products of these cards: the first card times some others, plus a value of the rest."""
    if not cards:
        return frozenset({0})
    first, rest = cards[0], cards[1:]
    totals: set[int] = set()
    for chosen in range(1 << len(rest)):
        term = first * prod(card for i, card in enumerate(rest) if chosen >> i & 1)
        totals |= {term + other for other in _totals(tuple(c for i, c in enumerate(rest) if not chosen >> i & 1))}
    return frozenset(totals)


@lru_cache(maxsize=64)
def _tasks(world: EZPoints, level: str, split: str) -> tuple[Task, ...]:
    ids: list[str] = []
    for hand, target in _problems(world.cards + (level == "L2"), *world.targets):
        withheld = derive("ezpoints", "target", target) % 5 == 0
        if withheld == (level == "L1") and split_of("ezpoints", hand, target, trained=level == "L0") == split:
            orders = sorted(set(permutations(hand)))
            shown = orders if split == "train" else [orders[derive("ezpoints", "order", hand, target) % len(orders)]]
            ids += [f"{','.join(map(str, order))}/{target}" for order in shown]
    return tuple(world.task(id) for id in sorted(ids, key=lambda id: derive("ezpoints", "place", id)))
