"""Houses, their contents, and the goals that are possible in them.

Invariants
----------
* House k of a pool does not depend on the pool's size, and no two houses of a pool have the same receptacles.
* Every house has all tools and a lamp, so each task type is possible in each house.
* A goal never holds at the start: no object of its sort lies in or on its target.

`houses` draws the layouts and `furnish` the contents, both from seeds; `goals` lists the goals that the contents allow.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from spark_rl.common.seeding import derive
from spark_rl.environments.household.catalogue import (
    CLOSED,
    CONDITIONS,
    KINDS,
    LAMP,
    OBJECTS,
    ROOMS,
    TOOLS,
    Condition,
    a,
    into,
    likelihood,
    listed,
)
from spark_rl.errors import UsageError

__all__ = ["Contents", "Goal", "House", "furnish", "goals", "houses"]

MOST_TOGETHER = 4
"""Most objects in or on one receptacle at the start, so that observations are short."""


@dataclass(frozen=True)
class House:
    """A fixed arrangement of rooms and receptacles."""

    rooms: tuple[tuple[str, tuple[str, ...]], ...]
    """(room, names of its receptacles), in the order of the first observation."""
    names: tuple[str, ...]
    """Names of all receptacles; elsewhere a receptacle is its index in this list."""
    nouns: tuple[str, ...]
    index: dict[str, int] = field(hash=False)
    """Name -> receptacle."""
    closed: int
    """Bit r set: receptacle r is closed at the start."""
    text: str
    """The first observation."""

    @classmethod
    def of(cls, rooms: Sequence[tuple[str, Sequence[str]]]) -> House:
        """The house with these rooms, each with a list of receptacle nouns, which are numbered in order."""
        count: Counter[str] = Counter()
        named: list[tuple[str, tuple[str, ...]]] = []
        for room, nouns in rooms:
            names: list[str] = []
            for noun in nouns:
                count[noun] += 1
                names.append(f"{noun} {count[noun]}")
            named.append((room, tuple(names)))
        names = [name for _, inside in named for name in inside]
        nouns = tuple(name.split()[0] for name in names)
        closed = sum(1 << r for r, noun in enumerate(nouns) if noun in CLOSED)
        text = " ".join(["You are in a house.", *(f"The {room} has {listed(inside)}." for room, inside in named)])
        return cls(tuple(named), tuple(names), nouns, {name: r for r, name in enumerate(names)}, closed, text)


def _draw_house(rng: random.Random, fewest: int, most: int) -> House:
    size = rng.randint(fewest, most)
    lamp_room, other = rng.sample(["bedroom", "livingroom"], 2)
    rooms = ["kitchen", lamp_room, *["bathroom"] * (size > 14), *[other] * (size > 19)]
    count = {(room, noun): least for room in rooms for noun, (least, _) in ROOMS[room].items()}
    while sum(count.values()) < size:
        room, noun = rng.choice([key for key in count if count[key] < ROOMS[key[0]][key[1]][1]])
        count[room, noun] += 1
    return House.of([(room, [noun for noun in ROOMS[room] for _ in range(count[room, noun])]) for room in rooms])


@lru_cache(maxsize=16)
def houses(number: int, fewest: int, most: int) -> tuple[House, ...]:
    """A pool of different houses with `fewest` to `most` receptacles.

    Raises:
        UsageError: there are not so many different houses of this size.
    """
    pool: dict[tuple[str, ...], House] = {}
    for attempt in range(200 * number):
        house = _draw_house(random.Random(derive("household", "house", fewest, most, attempt)), fewest, most)
        pool.setdefault(house.names, house)
        if len(pool) == number:
            return tuple(pool.values())
    raise UsageError(
        f"env.houses and env.unseen_houses ask for {number} houses, but there are about {len(pool)} different ones with "
        f"{fewest} to {most} receptacles: ask for fewer or widen env.receptacles"
    )


@dataclass(frozen=True)
class Contents:
    """The objects of a house and their places at the start. Object 0 is the lamp, which cannot be carried."""

    names: tuple[str, ...]
    nouns: tuple[str, ...]
    index: dict[str, int]
    """Name -> object."""
    places: tuple[int, ...]
    """The receptacle of each object."""
    conditions: tuple[Condition, ...]
    """Condition of each object; used in the hard preset only."""


@lru_cache(maxsize=4096)
def furnish(house: House, objects: int, seed: int) -> Contents:
    """Draw `objects` portable objects and their places from the shares of the catalogue."""
    rng = random.Random(derive("household", "contents", seed, *house.names))
    shares = {noun: share for noun in OBJECTS if any(share := likelihood(noun, house.nouns))}
    nouns = [LAMP]
    while len(nouns) <= objects:
        for noun in rng.sample(sorted(shares), len(shares)):
            nouns += [noun] * rng.choices((1, 2), (3, 1))[0]
    del nouns[objects + 1 :]
    shares[LAMP] = likelihood(LAMP, house.nouns)
    count: Counter[str] = Counter()
    names: list[str] = []
    places: list[int] = []
    load = [0] * len(house.names)
    for noun in nouns:
        count[noun] += 1
        names.append(f"{noun} {count[noun]}")
        room_left = [share * (held < MOST_TOGETHER) for share, held in zip(shares[noun], load, strict=True)]
        place = rng.choices(range(len(load)), room_left if any(room_left) else shares[noun])[0]
        places.append(place)
        load[place] += 1
    conditions = tuple(rng.choice(CONDITIONS) for _ in nouns)
    return Contents(tuple(names), tuple(nouns), {name: o for o, name in enumerate(names)}, tuple(places), conditions)


@dataclass(frozen=True)
class Goal:
    """The goal of a task."""

    kind: str
    """One of `KINDS`."""
    object: str
    """Noun of the object."""
    target: str
    """Noun of the receptacle for the object; the lamp's noun for `light`."""

    @property
    def sentence(self) -> str:
        """The goal in words, as in `clean a mug and put it in a cabinet`."""
        thing, target = a(self.object), f"{into(self.target)} {a(self.target)}"
        if self.kind == "place":
            return f"put {thing} {target}"
        if self.kind == "two":
            return f"put {thing} and another {self.object} {target}"
        if self.kind == "light":
            return f"look at {thing} under {a(self.target)}"
        return f"{self.kind} {thing} and put it {target}"

    @classmethod
    def read(cls, sentence: str) -> Goal:
        """The goal with this sentence.

        Raises:
            UsageError: no goal has this sentence.
        """
        for kind, pattern in _SENTENCES.items():
            if match := pattern.fullmatch(sentence):
                return cls(kind or match["kind"], match["object"], match["target"])
        raise UsageError(f'"{sentence}" is no goal of the household world')


_SENTENCES = {
    "two": re.compile(r"put an? (?P<object>\w+) and another \w+ (?:in|on) an? (?P<target>\w+)"),
    "place": re.compile(r"put an? (?P<object>\w+) (?:in|on) an? (?P<target>\w+)"),
    "light": re.compile(r"look at an? (?P<object>\w+) under an? (?P<target>\w+)"),
    "": re.compile(r"(?P<kind>clean|heat|cool) an? (?P<object>\w+) and put it (?:in|on) an? (?P<target>\w+)"),
}


def goals(house: House, contents: Contents, kind: str) -> Iterator[Goal]:
    """All goals of a kind that the contents allow and that do not hold at the start, in a fixed order."""
    assert kind in KINDS
    count = Counter(contents.nouns)
    taken = {(noun, house.nouns[place]) for noun, place in zip(contents.nouns, contents.places, strict=True)}
    for noun in sorted(count.keys() - {LAMP}):
        sort = OBJECTS[noun]
        if kind == "light" and "light" in sort.kinds:
            yield Goal(kind, noun, LAMP)
        elif kind == "place" or (kind == "two" and count[noun] > 1) or (kind in TOOLS and kind in sort.kinds):
            for target in sort.goes:
                if target in house.nouns and (noun, target) not in taken and target != TOOLS.get(kind):
                    yield Goal(kind, noun, target)
