"""The customers' goals, generated as the original generates them and stored as numbers.

Invariants
----------
* The goals and their order are those of the original, where its generator is seeded with 233 before it loads products and
  again before it shuffles. It draws the prices first, in the order of the products; then an upper price for each product
  (synthetic goals) or each instruction (human goals); then the order. The order is the same in every process.
* A goal is a number. Product and choice of options follow from the number, so that millions of goals take little memory.

Synthetic goals ask once for every combination of a product's options, in the order of `itertools.product` over the groups
sorted by name.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spark_rl.environments.webshop.catalogue import Product
from spark_rl.environments.webshop.index import Numbers

__all__ = ["SEED", "Draws", "Goal", "Goals", "Products"]

SEED = 233
_STEPS = [10.0 * step for step in range(1, 100)]
"""Upper prices that a goal may name."""
_NO_LIMIT = 1_000_000


class Products(Protocol):
    """All products of a shop, by number, in memory or in a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Product: ...


@dataclass(frozen=True, slots=True)
class Goal:
    """One customer's goal."""

    product: Product
    """The product that the goal was written for; others may fulfil it as well."""
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    """Name and value of each option; human goals have values only."""
    most: float
    """The upper price in dollars."""


@dataclass(frozen=True, eq=False)
class Goals:
    """All goals of one sort, in the order of the shuffle."""

    products: Products
    human: bool
    first: NDArray[np.int64]
    """Number, before the shuffle, of each product's first goal; the last entry is the number of goals."""
    most: NDArray[np.int32]
    """Upper price of each goal, before the shuffle."""
    order: NDArray[np.int32]
    """The numbers before the shuffle, in the order after the shuffle."""

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Goal:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(self.order[index])
        owner = self.owner(index)
        product, choice, most = self.products[owner], number - int(self.first[owner]), float(self.most[number])
        limit = "" if most == _NO_LIMIT else f", and price lower than {most:.2f} dollars"
        if self.human:
            request = [one for one in product.asked if one.attributes][choice]
            options = tuple(("", value) for value in request.options)
            return Goal(product, request.instruction.strip(".") + limit, request.attributes, options, most)
        options = _combination(product, choice)
        chosen = ", and ".join(f"{name}: {value}" for name, value in options)
        text = f"{product.instruction}{f' with {chosen}' if chosen else ''}{limit}"
        return Goal(product, text, product.wanted, options, most)

    def owner(self, index: int) -> int:
        """Number of the product that a goal was written for."""
        return int(np.searchsorted(self.first, int(self.order[index]), side="right")) - 1

    def owners(self) -> NDArray[np.int64]:
        """`owner` of all goals, in order."""
        return np.searchsorted(self.first, self.order, side="right") - 1

    def arrays(self) -> Iterator[tuple[str, Numbers]]:
        """The arrays by name, as they are written to files."""
        sort = "human" if self.human else "synthetic"
        return ((f"{sort}_{name}", getattr(self, name)) for name in ("first", "most", "order"))

    @classmethod
    def of(cls, products: Products, arrays: Mapping[str, Numbers], *, human: bool) -> Goals:
        """Goals from the arrays of `Goals.arrays`."""
        sort = "human" if human else "synthetic"
        return cls(products, human, *(arrays[f"{sort}_{name}"] for name in ("first", "most", "order")))


def _combination(product: Product, number: int) -> tuple[tuple[str, str], ...]:
    chosen: list[tuple[str, str]] = []
    for name, values in sorted(product.options, reverse=True):
        number, place = divmod(number, len(values))
        chosen.append((name, values[place]))
    return tuple(reversed(chosen))


class Draws:
    """Draws the products' prices one by one, and after the last product the goals."""

    def __init__(self) -> None:
        self._rng = random.Random(SEED)
        self.prices: list[float] = []
        self._made_up: list[int] = []
        """Number of synthetic goals of each product; -1 where it has no instruction."""
        self._human: list[int] = []

    def add(self, product: Product) -> None:
        """Add a product."""
        self.prices.append(product.prices[0] if len(product.prices) == 1 else self._rng.uniform(*product.prices))
        combinations = math.prod(len(values) for _, values in product.options)
        self._made_up.append(combinations if product.instruction is not None else -1)
        self._human.append(sum(bool(asked.attributes) for asked in product.asked))

    def goals(self, products: Products, *, human: bool) -> Goals:
        """The goals of one sort."""
        rng = random.Random()
        rng.setstate(self._rng.getstate())
        if human:
            counts = self._human
            most = [_limit(price, rng) for price, count in zip(self.prices, counts, strict=True) for _ in range(count)]
        else:
            counts = [max(count, 0) for count in self._made_up]
            # A product with an instruction, but with an empty group of options, has no goal, yet draws a price.
            drawn = [
                (_limit(price, rng), count) for price, count in zip(self.prices, self._made_up, strict=True) if count >= 0
            ]
            most = np.repeat(
                np.array([limit for limit, _ in drawn], dtype=np.int32),
                np.array([count for _, count in drawn], dtype=np.int64),
            )
        order = np.arange(sum(counts), dtype=np.int32)
        shuffled = order.tolist()
        random.Random(SEED).shuffle(shuffled)
        first = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        return Goals(products, human, first, np.array(most, dtype=np.int32), np.array(shuffled, dtype=np.int32))


def _limit(price: float, rng: random.Random) -> int:
    """An upper price: the larger of two of the next four multiples of ten."""
    above = [step for step in _STEPS if step > price][:4]
    return int(max(rng.sample(above, 2))) if len(above) >= 2 else _NO_LIMIT
