"""What customers ask for: goals, made as the original makes them, kept as numbers.

Invariants
----------
* The same goals in the same order as the original has when its generator is seeded with 233 before it loads products and
  again before it shuffles: prices are drawn first, in the order of the products, then one upper price a product (made-up
  goals) or an instruction (human ones), then the order. No process has an order of its own, whatever it is seeded with.
* A goal is a number: product and choice of options follow from it, so that millions of them take no room.

For a made-up goal every combination of the product's options is asked for once, in the order of `itertools.product` over
the groups sorted by name.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spark_rl.environments.webshop.catalogue import Product

__all__ = ["SEED", "Draws", "Goal", "Goals", "Products"]

SEED = 233
_STEPS = [10.0 * step for step in range(1, 100)]
"""Upper prices that are named."""
_NO_LIMIT = 1_000_000


class Products(Protocol):
    """All products of a shop by number, in memory or in a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Product: ...


@dataclass(frozen=True, slots=True)
class Goal:
    """What one customer wants."""

    product: Product
    """The one it was written for; others may do as well."""
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    """Name and value; human goals name values only."""
    most: float
    """The upper price in dollars."""


@dataclass(frozen=True, eq=False)
class Goals:
    """All goals of one sort, in the order of the shuffle."""

    products: Products
    human: bool
    first: NDArray[np.int64]
    """Number, before the shuffle, of each product's first goal; one more than there are products."""
    most: NDArray[np.int32]
    """Upper price of each goal, before the shuffle."""
    order: NDArray[np.int32]
    """Number before the shuffle of each goal after it."""

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
            asked = [one for one in product.asked if one.attributes][choice]
            options = tuple(("", value) for value in asked.options)
            return Goal(product, asked.instruction.strip(".") + limit, asked.attributes, options, most)
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

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """The arrays by name: what is written to files."""
        sort = "human" if self.human else "synthetic"
        return ((f"{sort}_{name}", getattr(self, name)) for name in ("first", "most", "order"))

    @classmethod
    def of(cls, products: Products, arrays: Mapping[str, NDArray[Any]], *, human: bool) -> Goals:
        """Goals of arrays as `arrays` gives them."""
        sort = "human" if human else "synthetic"
        return cls(products, human, *(arrays[f"{sort}_{name}"] for name in ("first", "most", "order")))


def _combination(product: Product, number: int) -> tuple[tuple[str, str], ...]:
    chosen: list[tuple[str, str]] = []
    for name, values in sorted(product.options, reverse=True):
        number, place = divmod(number, len(values))
        chosen.append((name, values[place]))
    return tuple(reversed(chosen))


class Draws:
    """Draws prices as products come by, and when all have, the goals."""

    def __init__(self) -> None:
        self._rng = random.Random(SEED)
        self.prices: list[float] = []
        self._made_up: list[int] = []
        """Made-up goals of each product."""
        self._human: list[int] = []

    def add(self, product: Product) -> None:
        """One more product."""
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
            # A product with an instruction, but an empty group of options, draws a price that nobody asks for.
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
