"""A generated shop, for tests, first looks and small models: nothing is downloaded or written.

Invariants
----------
* A product is a function of seed and number: the first 50 of 5,000 products equal those of a shop of 50.
* Words are few and short, all in lower case. A title is two properties, a noun and a model. A request names the properties
  and the noun, so that it contains the words to search for, and titles show which results may fit. Only a product's page
  shows whether it has the colour and the price of the request.

Official products have a code. Generated products have a model ("oscar 17"), which is also in the title, so that a small
language model can copy it from there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from spark_rl.common.seeding import derive
from spark_rl.environments.webshop.catalogue import SEPARATOR, Product

__all__ = ["FEWEST", "MOST", "products"]

FEWEST = 50
MOST = 5000
"""Most products of a generated shop; `FEWEST` is the least number."""

_CODES = (
    *("alpha", "bravo", "cargo", "delta", "echo", "fox", "golf", "hotel", "index", "jazz"),
    *("kilo", "lima", "metro", "nova", "oscar", "papa", "radio", "sigma", "tango", "ultra"),
)
_COLOURS = ("black", "white", "red", "blue", "green", "pink")


@dataclass(frozen=True)
class _Department:
    nouns: tuple[str, ...]
    properties: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Groups of options. Every product has the first group, and every other product each further group."""


_DEPARTMENTS = {
    "fashion": _Department(
        ("shirt", "dress", "jacket", "skirt", "sweater", "coat", "hat", "scarf"),
        ("cotton", "linen", "woolen", "striped", "warm", "light", "loose", "casual"),
        (("color", _COLOURS), ("size", ("small", "medium", "large", "xlarge"))),
    ),
    "garden": _Department(
        ("lamp", "rug", "chair", "shelf", "curtain", "table", "mirror", "bench"),
        ("wooden", "modern", "round", "folding", "rustic", "soft", "narrow", "solid"),
        (("color", _COLOURS), ("style", ("plain", "classic", "curved"))),
    ),
    "beauty": _Department(
        ("soap", "lotion", "shampoo", "balm", "perfume", "cream", "mask", "oil"),
        ("organic", "gentle", "vegan", "creamy", "natural", "fresh", "mild", "rich"),
        (("scent", ("rose", "mint", "lemon", "lavender", "vanilla")), ("size", ("small", "medium", "large"))),
    ),
    "grocery": _Department(
        ("tea", "coffee", "cookies", "crackers", "nuts", "bars", "candy", "rice"),
        ("organic", "roasted", "salted", "sweet", "crunchy", "spicy", "vegan", "instant"),
        (("flavor", ("apple", "cherry", "lemon", "honey", "vanilla")), ("pack", ("single", "double", "family"))),
    ),
    "electronics": _Department(
        ("speaker", "charger", "keyboard", "camera", "headset", "mouse", "monitor", "printer"),
        ("wireless", "portable", "compact", "fast", "sturdy", "quiet", "slim", "bright"),
        (("color", _COLOURS), ("plug", ("round", "flat", "angled"))),
    ),
}


def products(count: int, seed: int = 0) -> Iterator[Product]:
    """`count` products, each with a request."""
    for number in range(count):
        yield _product(number, random.Random(derive("webshop", "product", seed, number)))


def _product(number: int, rng: random.Random) -> Product:
    kind = rng.choice(list(_DEPARTMENTS))
    department = _DEPARTMENTS[kind]
    noun = rng.choice(department.nouns)
    first, second, hidden = rng.sample(department.properties, 3)
    low = rng.randint(4, 95)
    code = f"{_CODES[number % len(_CODES)]} {number // len(_CODES) + 1}"
    first_group, *others = department.groups
    groups = [first_group, *(group for group in others if rng.random() < 0.5)]
    return Product(
        asin=code,
        title=f"{first} {second} {noun} {code}",
        description=f"a {first} and {second} {noun} for every day.",
        bullets=(f"it is {hidden}.", f"made by house {rng.choice(('north', 'south', 'east', 'west'))}."),
        prices=(float(low),) if rng.random() < 0.8 else (float(low), float(low + rng.randint(1, 9))),
        options=tuple((name, _some(values, rng)) for name, values in groups),
        query=noun,
        kind=kind,
        categories=f"{kind} {SEPARATOR} {noun}",
        attributes=(first, second, hidden),
        instruction=f"find me {first} {second} {noun}",
        wanted=(first, second),
    )


def _some(values: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """Two to four of the values, in their order."""
    taken = rng.sample(range(len(values)), rng.randint(2, min(4, len(values))))
    return tuple(values[place] for place in sorted(taken))
