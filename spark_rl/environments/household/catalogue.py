"""The objects and receptacles of houses, the usual places of objects, and the targets of tasks.

Invariant: every noun is one lower-case word; with its number ("mug 2") it names one thing. Nouns of receptacles and of
objects do not overlap.

Contents of houses are drawn from these tables (`likelihood`), so an agent that learns the shares searches well.
Receptacles of a kind belong to one sort of room (kitchens have drawers, bedrooms dressers), so that the shares depend on
the receptacle's noun alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "CLOSED",
    "CONDITIONS",
    "KINDS",
    "LAMP",
    "OBJECTS",
    "ROOMS",
    "SURPRISE",
    "TOOLS",
    "Condition",
    "ObjectType",
    "a",
    "into",
    "likelihood",
    "listed",
]

KINDS = ("place", "two", "clean", "heat", "cool", "light")
"""The six task types: put an object somewhere, put two there, treat the object first (three ways), look at it by a lamp."""

TOOLS = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
"""Treatment -> the receptacle for it."""

LAMP = "desklamp"

SURPRISE = 0.2
"""Share of objects that lie in or on any receptacle, with equal probability."""

ROOMS: dict[str, dict[str, tuple[int, int]]] = {
    "kitchen": {
        "fridge": (1, 1),
        "microwave": (1, 1),
        "sinkbasin": (1, 1),
        "countertop": (1, 2),
        "cabinet": (1, 4),
        "drawer": (0, 3),
        "diningtable": (0, 1),
        "coffeemachine": (0, 1),
        "shelf": (0, 2),
        "garbagecan": (0, 1),
    },
    "bedroom": {"bed": (1, 1), "desk": (1, 1), "dresser": (1, 2), "sidetable": (0, 2), "wardrobe": (0, 1)},
    "livingroom": {
        "sofa": (1, 1),
        "coffeetable": (1, 1),
        "sidetable": (1, 2),
        "bookcase": (0, 2),
        "tvstand": (0, 1),
        "armchair": (0, 1),
    },
    "bathroom": {"sinkbasin": (1, 1), "bathtub": (1, 1), "toilet": (1, 1), "hamper": (0, 1)},
}
"""Room -> receptacle -> fewest and most of its kind."""

CLOSED = frozenset({"fridge", "microwave", "cabinet", "drawer", "dresser", "wardrobe", "hamper"})
"""Receptacles that must be opened before the agent can see or reach into them."""

_INSIDE = CLOSED | {"sinkbasin", "coffeemachine", "garbagecan", "bathtub"}


@dataclass(frozen=True)
class ObjectType:
    """A sort of portable object."""

    found: Mapping[str, float]
    """Receptacle -> relative share of the objects of this sort that lie there."""
    goes: tuple[str, ...]
    """Receptacles that may be the target of a task with this object."""
    kinds: frozenset[str] = field(default_factory=frozenset[str])
    """Task types for this object other than `place` and `two`: `clean`, `heat`, `cool`, `light`."""


_FOOD = ("countertop", "diningtable", "fridge", "garbagecan", "microwave")
_DISH = ("cabinet", "coffeemachine", "countertop", "diningtable", "shelf")
_CUTLERY = ("countertop", "diningtable", "drawer", "sinkbasin")
_OWN = ("armchair", "bed", "bookcase", "coffeetable", "desk", "dresser", "sidetable", "sofa", "tvstand", "wardrobe")
_BATH = ("bathtub", "countertop", "hamper", "sinkbasin", "toilet")
_ALL, _WASH, _LOOK = frozenset({"clean", "heat", "cool"}), frozenset({"clean"}), frozenset({"light"})

OBJECTS: dict[str, ObjectType] = {
    "apple": ObjectType({"diningtable": 4, "countertop": 3, "fridge": 3, "sinkbasin": 1}, _FOOD, _ALL),
    "bread": ObjectType({"countertop": 5, "cabinet": 3, "diningtable": 2, "shelf": 1}, _FOOD, frozenset({"heat", "cool"})),
    "egg": ObjectType({"fridge": 6, "countertop": 2, "microwave": 1, "cabinet": 1}, _FOOD, _ALL),
    "lettuce": ObjectType({"fridge": 5, "sinkbasin": 3, "countertop": 2}, _FOOD, frozenset({"clean", "cool"})),
    "potato": ObjectType({"cabinet": 4, "drawer": 2, "countertop": 2, "microwave": 2}, _FOOD, _ALL),
    "tomato": ObjectType({"fridge": 4, "countertop": 3, "sinkbasin": 2, "diningtable": 1}, _FOOD, _ALL),
    "bowl": ObjectType({"cabinet": 4, "shelf": 3, "diningtable": 2, "microwave": 1}, _DISH, _ALL),
    "cup": ObjectType({"cabinet": 4, "shelf": 2, "sinkbasin": 2, "desk": 1}, _DISH, _ALL),
    "mug": ObjectType({"cabinet": 3, "coffeemachine": 3, "desk": 2, "shelf": 1, "microwave": 1}, _DISH, _ALL),
    "plate": ObjectType({"cabinet": 4, "sinkbasin": 2, "diningtable": 2, "shelf": 1}, _DISH, _ALL),
    "fork": ObjectType({"drawer": 5, "diningtable": 2, "sinkbasin": 2, "countertop": 1}, _CUTLERY, _WASH),
    "knife": ObjectType({"drawer": 4, "countertop": 3, "cabinet": 2, "diningtable": 1}, _CUTLERY, _WASH),
    "spoon": ObjectType({"drawer": 5, "sinkbasin": 3, "cabinet": 2}, _CUTLERY, _WASH),
    "book": ObjectType({"bookcase": 4, "desk": 3, "bed": 2, "coffeetable": 2, "wardrobe": 1}, _OWN, _LOOK),
    "cellphone": ObjectType({"bed": 3, "sofa": 3, "coffeetable": 2, "countertop": 2, "dresser": 1}, _OWN, _LOOK),
    "creditcard": ObjectType({"dresser": 3, "desk": 3, "sidetable": 2, "drawer": 2, "armchair": 1}, _OWN, _LOOK),
    "keychain": ObjectType({"sidetable": 3, "drawer": 3, "sofa": 2, "tvstand": 2, "dresser": 2}, _OWN, _LOOK),
    "newspaper": ObjectType({"coffeetable": 4, "sofa": 3, "diningtable": 2, "bed": 1, "garbagecan": 1}, _OWN, _LOOK),
    "pencil": ObjectType({"desk": 4, "drawer": 3, "coffeetable": 2, "bookcase": 1, "dresser": 1}, _OWN, _LOOK),
    "pillow": ObjectType({"bed": 4, "sofa": 4, "armchair": 2, "wardrobe": 2}, _OWN, _LOOK),
    "watch": ObjectType({"dresser": 4, "sidetable": 3, "drawer": 2, "coffeetable": 2}, _OWN, _LOOK),
    "candle": ObjectType({"bathtub": 3, "toilet": 2, "dresser": 2, "shelf": 2}, _BATH),
    "cloth": ObjectType({"hamper": 4, "bathtub": 3, "sinkbasin": 2, "drawer": 1}, _BATH, _WASH),
    "soapbar": ObjectType({"sinkbasin": 4, "bathtub": 3, "toilet": 2, "cabinet": 1}, _BATH, _WASH),
}

_LAMP_FOUND = {"desk": 4.0, "sidetable": 3.0, "tvstand": 2.0, "coffeetable": 2.0, "bookcase": 2.0, "bed": 1.0}


@dataclass(frozen=True)
class Condition:
    """A condition of objects in the hard preset, and the only manners that do not ruin such an object."""

    adjective: str
    take: str
    treat: str
    """Manner of the treatments, and of `use`, where it is the brightness of the lamp."""
    move: str

    def handling(self, verb: str) -> str:
        """The manner for this verb: the words at the end of the action."""
        return {"take": self.take, "move": self.move}.get(verb, self.treat)


CONDITIONS = (
    Condition("fragile", "with hands", "on low", "on cloth"),
    Condition("sticky", "with tongs", "on high", "on paper"),
    Condition("wet", "with gloves", "on medium", "on foil"),
)


def likelihood(noun: str, receptacles: Sequence[str]) -> list[float]:
    """The probability that an object of this noun lies in or on each receptacle; sums to 1, or all 0.

    Receptacles of one noun divide the noun's share evenly. All probabilities are 0 where the house has no usual place for
    the object.

    Args:
        noun: noun of the object.
        receptacles: nouns of the receptacles.
    """
    found = _LAMP_FOUND if noun == LAMP else OBJECTS[noun].found
    count = Counter(receptacles)
    total = sum(share for receptacle, share in found.items() if receptacle in count)
    if not total:
        return [0.0] * len(receptacles)
    surprise = 0.0 if noun == LAMP else SURPRISE
    return [(1 - surprise) * found.get(r, 0.0) / total / count[r] + surprise / len(receptacles) for r in receptacles]


def a(name: str) -> str:
    """The name with its article: `an egg 1`."""
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def into(receptacle: str) -> str:
    """The preposition for a receptacle: `in` a fridge, `on` a desk."""
    return "in" if receptacle in _INSIDE else "on"


def listed(names: Sequence[str]) -> str:
    """The names with articles as an English list: `a mug 1, a pan 2 and an egg 1`."""
    *first, last = [a(name) for name in names]
    return f"{', '.join(first)} and {last}" if first else last
