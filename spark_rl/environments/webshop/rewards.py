"""The score of a purchase: a number from 0 to 1, by the original's rules.

    score = (attributes met + options met + price met) / (attributes + options + 1) * type

Invariant: `compat` changes only how the options of a synthetic goal are compared: as in the original, with its mistake.

The mistake: the original compares the chosen value's colour word with the goal's *pair* of name and value. The chosen value
is reduced to its colour ("brown" for "r.brown2070"), but the pair is not, so the two do not match, and goals with such
values cannot be reached. Without `compat`, both values are reduced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

from spark_rl.environments.webshop.catalogue import SEPARATOR, Product
from spark_rl.environments.webshop.goals import Goal
from spark_rl.environments.webshop.nouns import Nouns
from spark_rl.errors import MissingExtra

__all__ = ["Score", "colour", "fitting", "score", "similar", "title_score", "type_score"]

_ALIKE = 85
"""Texts with a similarity above this, out of 100, count as equal."""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a purchase and its parts."""

    total: float
    attributes: int
    """Number of the goal's attributes that the product has."""
    options: int
    """Number of the goal's options that were chosen."""
    price: bool
    """Whether the price is within the goal's limit."""
    kind: float
    """1 for a product of the goal's kind, less for another."""


def score(goal: Goal, bought: Product, price: float, chosen: Sequence[str], *, nouns: Nouns, compat: bool = False) -> Score:
    """The score of the purchase of a product.

    Args:
        goal: the customer's goal.
        bought: the product.
        price: price of the product in dollars.
        chosen: the values of the chosen options.
        nouns: gives the nouns of a title.
        compat: compare options as the original does.
    """
    attributes = sum(_has(bought, attribute) for attribute in goal.attributes)
    options = sum(map(_option_test(chosen, compat=compat), goal.options))
    cheap = price <= goal.most
    kind = type_score(goal.product, bought, title_score(nouns(goal.product), nouns(bought)))
    total = (attributes + options + cheap) / (len(goal.attributes) + len(goal.options) + 1) * kind
    return Score(total, attributes, options, cheap, kind)


def _has(product: Product, attribute: str) -> bool:
    return any(similar(attribute, other) for other in product.attributes) or any(
        attribute in text.lower() for text in (product.title, " ".join(product.bullets), product.description)
    )


def _option_test(chosen: Iterable[str], *, compat: bool) -> Callable[[tuple[str, str]], bool]:
    values = [colour(value) for value in chosen]

    def met(option: tuple[str, str]) -> bool:
        name, value = option
        if not (compat and name):
            wanted: object = colour(value)
        else:
            wanted = next((word for word in _colours() if word in option), option)  # in a pair: equal to one of the two
        return any(similar(value, wanted) for value in values)

    return met


def fitting(goal: Goal) -> list[str]:
    """The values to click on the page of the goal's product, one for each option of the goal that the page offers.

    Where a person's spelling of a value differs from the shop's, the first value that counts as equal is taken.
    """
    values = [value for _, group in goal.product.options for value in group]
    clicked: list[str] = []
    for option in goal.options:
        met = [value for value in values if value == option[1]] or [
            value for value in values if _option_test((value,), compat=False)(option)
        ]
        clicked += met[:1]
    return clicked


def type_score(wanted: Product, bought: Product, title: float) -> float:
    """How similar the kinds of two products are, from 0 to 1.

    Args:
        wanted: the goal's product.
        bought: the product that was bought.
        title: `title_score` of the two.
    """
    if title == 0:
        return 0.0
    if title < 0.1:
        return 0.1
    shared = _nodes(wanted) & _nodes(bought)
    return 1.0 if wanted.query == bought.query or len(shared) >= 2 or title > 0.2 else 0.5


def title_score(wanted: Sequence[str], bought: Sequence[str]) -> float:
    """Share of the nouns of the wanted title that the other title has; 0.2 where the wanted title has no nouns."""
    return len(set(wanted) & set(bought)) / len(wanted) if wanted else 0.2


def _nodes(product: Product) -> set[str]:
    return {node.strip() for node in product.categories.split(SEPARATOR)}


@cache
def _colours() -> tuple[str, ...]:
    text = resources.files("spark_rl.environments.webshop").joinpath("colors.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["colors"])


@lru_cache(maxsize=1 << 14)
def colour(value: str) -> str:
    """The first colour word that is part of a value, or the value."""
    return next((word for word in _colours() if word in value), value)


@lru_cache(maxsize=1 << 16)
def similar(one: object, other: object) -> bool:
    """Whether two texts share most of their words."""
    return _ratio()(_plain(one), _plain(other)) > _ALIKE


@cache
def _ratio() -> Callable[[str, str], int]:
    try:
        from rapidfuzz.fuzz import token_set_ratio
    except ImportError as error:
        raise MissingExtra("rapidfuzz, by which WebShop compares texts,", "webshop") from error
    return lambda one, other: round(token_set_ratio(one, other))


_LATIN = dict.fromkeys(range(128, 256))


def _plain(text: object) -> str:
    """Lower case, and blanks for all but letters and digits; the accented letters of Latin-1 are dropped."""
    from rapidfuzz.utils import default_process

    return default_process(str(text).translate(_LATIN))
