"""Games generated from their ids, for tests and for users without the official games: nothing is stored or downloaded.

Invariants
----------
* An id determines its game: the same text in every process, with the same versions of this package and of alfworld.
* The walkthrough of each game wins.
* No problem is in two splits: `valid_unseen` has scenes of its own; `train` and `valid_seen` share scenes, but no goal
  (type, object, receptacle, scene).

Mechanism
---------
An id is `<split>/<type>-<Object>-None-<Receptacle>-<scene>/trial_G<objects>_<number>`. Split, size and number are the seed
of a random stream that draws scene, object and receptacle, which is enough to list a task. A second stream puts things where
ALFWorld's tables allow them, and the solution follows from their places. The engine numbers the things of a kind by their
identifiers in reverse order; the identifiers are chosen accordingly.
"""

from __future__ import annotations

import functools
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from spark_rl.environments.alfworld.furnishing import (
    APPLIANCES,
    LAMP,
    LAMP_PLACES,
    ROOMS,
    SCENES,
    Receptacle,
    Room,
    furnish,
    room,
    rules,
    weight,
)
from spark_rl.environments.alfworld.games import KINDS, Game
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.types import Task

__all__ = ["FEWEST", "MOST", "SIZES", "GeneratedGames"]

SIZES = {"train": 3600, "valid_seen": 120, "valid_unseen": 120}
"""Number of games in each split, where every type is equally frequent."""
FEWEST = 6
MOST = 120
"""Most objects of a game; `FEWEST` is the least number."""

_UNSEEN = 6
"""Number of scenes of each kind of room that only `valid_unseen` has: the first of the thirty."""
_SEEN_SHARE = 6
"""One goal in so many belongs to `valid_seen`, all others to `train`."""
_TRIAL = re.compile(r"trial_G(\d{1,3})_(\d{6})")
_LOOK, _TWO = KINDS[1], KINDS[5]


@dataclass(frozen=True)
class GeneratedGames:
    """The generated games with a given number of objects, including the lamp."""

    objects: int

    def split(self, name: str) -> tuple[Task, ...]:
        """All games of a split; this needs alfworld's tables, but not the engine."""
        return _listed(self.objects, name)

    def task(self, task_id: str) -> Task:
        """The game with this id, whatever its size."""
        if (goal := _read(task_id)) is None:
            raise UsageError(f'there is no generated game "{task_id}"; `spark-rl env tasks alfworld` lists them')
        return goal.task

    def read(self, task_id: str) -> Game:
        """The content of the game."""
        if (goal := _read(task_id)) is None:
            raise EnvironmentFailure(f'there is no generated game "{task_id}"')
        return _Game(goal).content()


@dataclass(frozen=True)
class _Goal:
    """The goal and the scene of a game, which its id determines."""

    task: Task
    objects: int
    scene: int
    target: str
    destination: str
    """A kind of receptacle, or the lamp."""


@dataclass(frozen=True, slots=True)
class _Thing:
    kind: str
    number: int
    lies: Receptacle

    @property
    def name(self) -> str:
        return f"{self.kind.lower()} {self.number}"


@functools.lru_cache(maxsize=16)
def _listed(objects: int, split: str) -> tuple[Task, ...]:
    goals = (_draw(split, objects, number) for number in range(SIZES[split]))
    return tuple(sorted((goal.task for goal in goals), key=lambda task: task.id))


def _read(task_id: str) -> _Goal | None:
    split, _, rest = task_id.partition("/")
    match = _TRIAL.fullmatch(rest.rpartition("/")[2])
    if match is None or split not in SIZES:
        return None
    objects, number = int(match[1]), int(match[2])
    if not (FEWEST <= objects <= MOST and number < SIZES[split]):
        return None
    goal = _draw(split, objects, number)
    return goal if goal.task.id == task_id else None


def _draw(split: str, objects: int, number: int) -> _Goal:
    """Scene and goal of a game, drawn again until the goal belongs to the split; each scene has many such goals."""
    rng = random.Random(f"alfworld {split} {objects} {number}")
    kind = KINDS[number % len(KINDS)]
    scenes = range(_UNSEEN) if split == "valid_unseen" else range(_UNSEEN, SCENES)
    rooms = [room for room in ROOMS if _suits(room, kind)]
    while True:
        scene = rng.choice(rooms).first + rng.choice(scenes)
        target, destination = rng.choice(_offers(scene, objects, kind))
        name = f"{kind}-{target}-None-{destination}-{scene}"
        if split == "valid_unseen" or (zlib.crc32(name.encode()) % _SEEN_SHARE == 0) == (split == "valid_seen"):
            break
    names = {"obj": target.lower(), "recep": destination.lower(), "toggle": destination.lower()}
    sentence = rng.choice(rules().goals[kind]["templates"]).format(**names) + "."
    task = Task("alfworld", f"{split}/{name}/trial_G{objects}_{number:06d}", sentence, kind)
    return _Goal(task, objects, scene, target, destination)


def _suits(room: Room, kind: str) -> bool:
    """Whether a kind of room allows a task type."""
    return LAMP in room.lying if kind == _LOOK else kind not in APPLIANCES or APPLIANCES[kind].kind in room.standing


@functools.lru_cache(maxsize=8192)
def _offers(scene: int, objects: int, kind: str) -> tuple[tuple[str, str], ...]:
    """The possible pairs of target and destination in a scene, where the target can also lie in another place."""
    tables, standing = rules(), sorted({receptacle.kind for receptacle in furnish(scene, objects)})
    appliance = APPLIANCES.get(kind)
    offers: list[tuple[str, str]] = []
    for thing in room(scene).lying:
        hosts = [host for host in standing if thing in tables.holds[host]]
        if kind == _LOOK:
            offers += [(thing, LAMP)] if hosts else []
        elif len(hosts) > 1 and (appliance is None or thing in tables.can[appliance.able]):
            offers += [(thing, host) for host in hosts if appliance is None or host != appliance.kind]
    return tuple(offers)


class _Game:
    """The generator of one game: the places of things, the text of the problem, the solution."""

    def __init__(self, goal: _Goal) -> None:
        self._goal, self._rules = goal, rules()
        self._rng = random.Random(f"alfworld contents {goal.task.id}")
        self._standing = furnish(goal.scene, goal.objects)
        self._things = self._placed()

    def content(self) -> Game:
        """The game, with the keys of an official file."""
        return {
            "pddl_domain": self._rules.domain,
            "grammar": self._rules.grammar.replace("UNKNOWN GOAL.", self._goal.task.instruction),
            "pddl_problem": self._problem(),
            "solvable": True,
            "walkthrough": self._solution(),
        }

    def _placed(self) -> list[_Thing]:
        """All things: copies of the target, none at the destination, a lamp, and other things of all kinds evenly."""
        goal, rng = self._goal, self._rng
        kinds = [goal.target] * (rng.randint(1, 2) + (goal.task.kind == _TWO))
        belonging = room(goal.scene).lying
        kinds += [LAMP] if LAMP in belonging else []
        others = [kind for kind in belonging if kind not in (goal.target, LAMP) and self._hosts(kind)]
        while len(kinds) < goal.objects:
            kinds += rng.sample(others, min(len(others), goal.objects - len(kinds)))
        numbers: Counter[str] = Counter()
        things: list[_Thing] = []
        for kind in kinds:
            numbers[kind] += 1
            hosts = self._hosts(kind)
            [host] = rng.choices(hosts, [weight(host.kind) for host in hosts])
            things.append(_Thing(kind, numbers[kind], host))
        return things

    def _hosts(self, kind: str) -> list[Receptacle]:
        """The receptacles where things of a kind may lie at the start."""
        if kind == LAMP:
            return [host for host in self._standing if host.kind in LAMP_PLACES]
        barred = self._goal.destination if kind == self._goal.target else ""
        return [host for host in self._standing if kind in self._rules.holds[host.kind] and host.kind != barred]

    def _solution(self) -> list[str]:
        goal, actions, opened = self._goal, list[str](), set[Receptacle]()
        place = 0

        def reach(receptacle: Receptacle, *, inside: bool = True) -> None:
            nonlocal place
            if receptacle.place != place:  # the engine refuses `go to` for a receptacle at the agent's own place
                actions.append(f"go to {receptacle.name}")
                place = receptacle.place
            if inside and receptacle.kind in self._rules.openable and receptacle not in opened:
                actions.append(f"open {receptacle.name}")
                opened.add(receptacle)

        def standing(kind: str) -> Receptacle:
            return self._rng.choice([receptacle for receptacle in self._standing if receptacle.kind == kind])

        targets = [thing for thing in self._things if thing.kind == goal.target]
        destination = None if goal.task.kind == _LOOK else standing(goal.destination)
        for target in self._rng.sample(targets, 2 if goal.task.kind == _TWO else 1):
            reach(target.lies)
            actions.append(f"take {target.name} from {target.lies.name}")
            if (appliance := APPLIANCES.get(goal.task.kind)) is not None:
                with_it = standing(appliance.kind)
                reach(with_it, inside=False)
                actions.append(f"{appliance.verb} {target.name} with {with_it.name}")
            if destination is None:
                [lamp] = (thing for thing in self._things if thing.kind == LAMP)
                reach(lamp.lies)
                actions.append(f"use {lamp.name}")
            else:
                reach(destination)
                actions.append(f"move {target.name} to {destination.name}")
        return actions

    def _problem(self) -> str:
        goal = self._rules.goals[self._goal.task.kind]["pddl"].replace("#", "-")
        goal = goal.format(obj=self._goal.target, recep=self._goal.destination, toggle=self._goal.destination)
        name = self._goal.task.id.rpartition("/")[2]
        declared, facts = "\n".join(self._declared()), "\n".join(sorted(set(self._facts())))
        return f"(define (problem {name})\n(:domain alfred)\n(:objects\n{declared}\n)\n(:init\n{facts}\n)\n{goal}"

    def _declared(self) -> Iterator[str]:
        """Symbols of the problem. As in official games, each kind of thing is also an object, which lies nowhere."""
        yield "agent1 - agent"
        for kind in self._rules.things:
            yield f"{kind} - object"
            yield f"{kind}Type - otype"
        yield from (f"{kind}Type - rtype" for kind in self._rules.receptacles)
        yield from (f"{self._id(thing)} - object" for thing in self._things)
        yield from (f"{self._id(receptacle)} - receptacle" for receptacle in self._standing)
        yield from (f"loc_bar_{place} - location" for place in sorted({0, *(there.place for there in self._standing)}))

    def _facts(self) -> Iterator[str]:
        yield "(atLocation agent1 loc_bar_0)"
        for receptacle in self._standing:
            name, kind = self._id(receptacle), receptacle.kind
            yield f"(receptacleType {name} {kind}Type)"
            yield f"(receptacleAtLocation {name} loc_bar_{receptacle.place})"
            if kind in self._rules.openable:
                yield f"(openable {name})"
            present = sorted({thing.kind for thing in self._things} & self._rules.holds[kind])
            yield from (f"(canContain {kind}Type {thing}Type)" for thing in present)
        for thing in self._things:
            name = self._id(thing)
            yield f"(objectType {name} {thing.kind}Type)"
            yield f"(inReceptacle {name} {self._id(thing.lies)})"
            yield f"(objectAtLocation {name} loc_bar_{thing.lies.place})"
            if thing.kind != LAMP:
                yield f"(pickupable {name})"
            yield from (f"({what.lower()} {name})" for what, kinds in self._rules.can.items() if thing.kind in kinds)

    def _id(self, one: _Thing | Receptacle) -> str:
        """The identifier by which the engine gives the thing its number."""
        others = self._things if isinstance(one, _Thing) else self._standing
        backwards = sum(other.kind == one.kind for other in others) - one.number
        stem = one.kind.removesuffix("Basin")
        return f"{stem}_bar_{backwards:03d}" + (f"_bar_{one.kind}" if stem != one.kind else "")
