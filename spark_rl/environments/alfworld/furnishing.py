"""The receptacles in the rooms of generated games, and the rules of the games.

Invariant: in games of one size, a scene always has the same receptacles, and no two scenes have the same ones.

The rules are ALFWorld's own: the contents of receptacles, the things that can be heated, the goals and their sentences, the
engine's domain and grammar. They are read from the files of the installed package, since its import would create a folder
for data and set `$ALFWORLD_DATA`. The receptacles of rooms and the usual places of things are tables of this package, from
counts over the official games.
"""

from __future__ import annotations

import functools
import importlib.util
import random
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from spark_rl.errors import MissingExtra

__all__ = [
    "APPLIANCES",
    "LAMP",
    "LAMP_PLACES",
    "ROOMS",
    "SCENES",
    "Appliance",
    "GoalTexts",
    "Receptacle",
    "Room",
    "Rules",
    "furnish",
    "room",
    "rules",
    "weight",
]

SCENES = 30
"""Number of scenes of each kind of room."""
LAMP = "DeskLamp"
LAMP_PLACES = ("Desk", "SideTable", "Dresser", "Shelf")


@dataclass(frozen=True)
class Appliance:
    """A treatment: the kind of receptacle, the verb of the action, and the property that a thing must have."""

    kind: str
    verb: str
    able: str


APPLIANCES = {
    "pick_clean_then_place_in_recep": Appliance("SinkBasin", "clean", "Cleanable"),
    "pick_heat_then_place_in_recep": Appliance("Microwave", "heat", "Heatable"),
    "pick_cool_then_place_in_recep": Appliance("Fridge", "cool", "Coolable"),
}
"""By type of task."""


@dataclass(frozen=True)
class Room:
    """A kind of room."""

    first: int
    """Number of its first scene."""
    standing: Mapping[str, tuple[int, int]]
    """Kinds of receptacles, each with the fewest and the most that stand in one room."""
    lying: tuple[str, ...]
    """Kinds of things that belong in it."""


def _room(first: int, standing: str, lying: str) -> Room:
    words = [word.partition(":") for word in standing.split()]
    bounds = {kind: (int(least), int(most)) for kind, _, span in words for least, _, most in [span.partition("-")]}
    return Room(first, bounds, tuple(lying.split()))


ROOMS = (
    _room(  # kitchens
        1,
        "Cabinet:0-27 CoffeeMachine:0-1 CounterTop:1-4 DiningTable:0-2 Drawer:0-24 Fridge:1-1 GarbageCan:0-1 Microwave:1-1 "
        "Safe:0-1 Shelf:0-3 SideTable:0-1 SinkBasin:1-1 StoveBurner:0-6 Toaster:0-1",
        "Apple Bowl Bread ButterKnife CreditCard Cup DishSponge Egg Fork Glassbottle Kettle Knife Ladle Lettuce Mug Pan "
        "PepperShaker Plate Pot Potato SaltShaker SoapBottle Spatula Spoon Statue Tomato Vase WineBottle",
    ),
    _room(  # living rooms
        201,
        "ArmChair:0-3 Cabinet:0-8 CoffeeTable:0-2 DiningTable:0-2 Drawer:0-20 Dresser:0-1 GarbageCan:0-1 Ottoman:0-1 "
        "Safe:0-1 Shelf:0-12 SideTable:1-4 Sofa:1-2",
        f"Book Bowl Box CellPhone CreditCard {LAMP} KeyChain Laptop Newspaper Pen Pencil Pillow Plate RemoteControl Statue "
        "TissueBox Vase Watch WateringCan",
    ),
    _room(  # bedrooms
        301,
        "ArmChair:0-2 Bed:1-2 Cabinet:0-4 Desk:1-2 Drawer:0-16 Dresser:0-2 GarbageCan:0-1 LaundryHamper:0-1 Safe:0-1 "
        "Shelf:0-12 SideTable:0-2",
        f"AlarmClock BasketBall Book Bowl Box CD CellPhone Cloth CreditCard {LAMP} KeyChain Laptop Mug Pen Pencil Pillow "
        "RemoteControl Statue TennisRacket TissueBox Vase Watch",
    ),
    _room(  # bathrooms
        401,
        "BathtubBasin:0-1 Cabinet:0-9 Cart:0-1 CounterTop:0-2 Drawer:0-8 Dresser:0-1 GarbageCan:0-1 HandTowelHolder:0-3 "
        "Shelf:0-4 SideTable:0-1 SinkBasin:1-2 Toilet:1-1 ToiletPaperHanger:0-1 TowelHolder:0-2",
        "Candle Cloth DishSponge HandTowel SoapBar SoapBottle SprayBottle TissueBox ToiletPaper Towel",
    ),
)

_SHARED = 0.12
"""Chance that a receptacle shares the place of the one before it, about as in the official games."""
_WEIGHTS = {
    "Bed": 4.5, "Cabinet": 0.5, "CoffeeTable": 5, "CounterTop": 7, "Desk": 6, "DiningTable": 8, "Drawer": 0.7, "Dresser": 5,
    "Fridge": 4, "SideTable": 3, "SinkBasin": 2, "Sofa": 3, "StoveBurner": 0.5, "Toilet": 2.5,
}  # fmt: skip


def room(scene: int) -> Room:
    """The kind of room that a scene is."""
    return next(room for room in ROOMS if 0 <= scene - room.first < SCENES)


def weight(kind: str) -> float:
    """The approximate number of things in a receptacle of this kind in an official game."""
    return _WEIGHTS.get(kind, 1.0)


class GoalTexts(TypedDict):
    """A type of task, as `alfworld` describes it."""

    pddl: str
    """The goal."""
    templates: list[str]
    """The sentences that name the task, with `{obj}`, `{recep}`, `{toggle}` in them."""


@dataclass(frozen=True)
class Rules:
    """The game rules of the installed `alfworld`."""

    domain: str
    """Actions of the engine (PDDL)."""
    grammar: str
    """Texts of the engine; the sentence of the task replaces `UNKNOWN GOAL`."""
    goals: Mapping[str, GoalTexts]
    """By type of task."""
    holds: Mapping[str, frozenset[str]]
    """Kind of receptacle -> kinds of things that it may hold."""
    can: Mapping[str, frozenset[str]]
    """Property (`Cleanable`, `Heatable`, `Coolable`, `Sliceable`, `Toggleable`) -> kinds of things that have it."""
    openable: frozenset[str]
    """Kinds of receptacles that are closed at the start."""
    things: tuple[str, ...]
    """All kinds of things, sorted."""
    receptacles: tuple[str, ...]
    """All kinds of receptacles, sorted."""


@functools.cache
def rules() -> Rules:
    """The rules, which are read once per process.

    Raises:
        MissingExtra: alfworld is not installed.
    """
    spec = importlib.util.find_spec("alfworld")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("ALFWorld", "alfworld")
    folder = Path(spec.submodule_search_locations[0])
    constants = runpy.run_path(str(folder / "gen" / "constants.py"))
    goals = runpy.run_path(str(folder / "gen" / "goal_library.py"))["gdict"]
    receptacles = set(constants["RECEPTACLES"]) - set(constants["MOVABLE_RECEPTACLES"])
    return Rules(
        domain=(folder / "data" / "alfred.pddl").read_text(encoding="utf-8"),
        grammar=(folder / "data" / "alfred.twl2").read_text(encoding="utf-8"),
        goals=goals,
        holds={kind: frozenset(things) for kind, things in constants["VAL_RECEPTACLE_OBJECTS"].items()},
        can={name: frozenset(things) for name, things in constants["VAL_ACTION_OBJECTS"].items()},
        openable=frozenset(constants["OPENABLE_CLASS_LIST"]),
        things=tuple(sorted(set(constants["OBJECTS"]) - receptacles)),
        receptacles=tuple(sorted(receptacles)),
    )


@dataclass(frozen=True, slots=True)
class Receptacle:
    """A receptacle: kind `Cabinet` and number 3 are `cabinet 3` in texts."""

    kind: str
    number: int
    place: int
    """Number of its place; some receptacles share a place."""

    @property
    def name(self) -> str:
        """The name in texts."""
        return f"{self.kind.lower()} {self.number}"


@functools.lru_cache(maxsize=1024)
def furnish(scene: int, objects: int) -> tuple[Receptacle, ...]:
    """The receptacles of a scene in games of a size: about two for three objects, as in official games, if they fit."""
    rng = random.Random(f"alfworld scene {scene} {objects}")
    others = [_kinds(furnish(other, objects)) for other in range(room(scene).first, scene)]
    while _kinds(standing := _stand(room(scene), objects, rng)) in others:
        pass
    return standing


def _kinds(standing: tuple[Receptacle, ...]) -> list[str]:
    return [receptacle.kind for receptacle in standing]


def _stand(room: Room, objects: int, rng: random.Random) -> tuple[Receptacle, ...]:
    count = {kind: least for kind, (least, _) in room.standing.items()}
    wanted = rng.uniform(0.5, 0.85) * min(objects, sum(most for _, most in room.standing.values()))
    for _ in range(max(rng.randint(2, 4), round(wanted) - sum(count.values()))):
        # The floor makes single pieces come early; cabinets and drawers come often.
        spare = {kind: max(most - count[kind], 2) for kind, (_, most) in room.standing.items() if count[kind] < most}
        count[rng.choices(list(spare), list(spare.values()))[0]] += 1
    standing: list[Receptacle] = []
    place = 0
    for kind, most in count.items():
        for number in range(1, most + 1):
            place += not standing or rng.random() >= _SHARED
            standing.append(Receptacle(kind, number, place))
    return tuple(standing)
