"""What a purchase is worth: a number from 0 to 1, by the original's rules.

    score = (attributes met + options met + price met) / (attributes + options + 1) * type

Invariant: `compat` changes nothing but how the options of a made-up goal are read, which is as the original does it,
mistake included.

That mistake: it compares the chosen value's colour word with the goal's *pair* of name and value. A pair is no text, so
it keeps its own spelling where the value is reduced to its colour ("brown" for "r.brown2070"), and the two no longer
match: goals with such values cannot be won. Mended, both values are reduced.
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
"""Texts that are more alike than this, out of 100, count as one."""


@dataclass(frozen=True, slots=True)
class Score:
    """A purchase's worth and its parts."""

    total: float
    attributes: int
    """Wanted attributes that the product has."""
    options: int
    """Wanted options that were chosen."""
    price: bool
    kind: float
    """1 for a product of the wanted kind, less for another."""


def score(goal: Goal, bought: Product, price: float, chosen: Sequence[str], *, nouns: Nouns, compat: bool = False) -> Score:
    """What buying a product is worth to a customer.

    Args:
        goal: what was asked for.
        bought: the product.
        price: what it costs, in dollars.
        chosen: the values of the options chosen.
        nouns: of a title.
        compat: read options as the original does.
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
    """The values to click on the page of the product that was meant, one for each option that is asked for and there is.

    People do not always write a value as the shop does: then the first one that counts as it.
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
    """How near the kind of a product is to that of another."""
    if title == 0:
        return 0.0
    if title < 0.1:
        return 0.1
    shared = _nodes(wanted) & _nodes(bought)
    return 1.0 if wanted.query == bought.query or len(shared) >= 2 or title > 0.2 else 0.5


def title_score(wanted: Sequence[str], bought: Sequence[str]) -> float:
    """Share of the nouns of one title that the other has; 0.2 for a title without any."""
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
