"""The household game: an immutable state, one function per verb, and the environment that wraps them.

Invariants
----------
* A state is a value: a fork shares it and costs nothing, and no fork can disturb another.
* `admissible` lists exactly the actions that `step` carries out.
* The agent sees only the contents of the receptacle at which it stands, and those of a closed receptacle only after
  opening it.

A scene (house, contents, goal) never changes. A state holds everything that changes, with sets of objects and receptacles
as bits. Each verb is a function (scene, state, words of the action) -> next state, or None where the action does not apply.

In the hard preset, objects are fragile, sticky or wet. An observation names the condition only where the object lies. The
actions `take`, `move`, `use` and the treatments end with one of three manners. A manner that is wrong for the condition
ruins the object, no observation says so, and a ruined object fulfils no task. An episode thus has two to four final
choices that depend on an observation from earlier steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from spark_rl.environments.household.catalogue import CONDITIONS, OBJECTS, TOOLS, into, listed
from spark_rl.environments.household.houses import Contents, Goal, House
from spark_rl.errors import EnvironmentFailure
from spark_rl.types import Observation, Task

__all__ = ["NOTHING_HAPPENS", "HouseholdEnvironment", "Scene", "State", "admissible", "apply", "inventory", "start"]

NOTHING_HAPPENS = "Nothing happens."
_HANDLED = frozenset({"take", "move", "use", *TOOLS})
"""Verbs that end with a manner in the hard preset."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The fixed part of a task: the house, its contents at the start, and the goal."""

    house: House
    contents: Contents
    goal: Goal
    hard: bool = False


class State(NamedTuple):
    """The changing part of an episode. Receptacles and objects are numbers; a set of them is an integer's bits."""

    at: int
    """Receptacle at which the agent stands, -1 at the start."""
    held: int
    """Object in hand, -1 for none."""
    places: tuple[int, ...]
    """Receptacle of each object, -1 for the object in hand."""
    closed: int
    clean: int
    hot: int
    cold: int
    lit: bool
    """The lamp is on."""
    ruined: int
    kind: str
    """Verb of the last action, empty at the start."""
    text: str
    """The answer to the last action."""
    won: bool


def start(scene: Scene) -> State:
    """The state before any action."""
    return State(-1, -1, scene.contents.places, scene.house.closed, 0, 0, 0, False, 0, "", scene.house.text, False)


def apply(scene: Scene, state: State, action: str) -> State | None:
    """The state after an action, or None where it is unknown or does not apply."""
    if state.won:
        return None
    words = action.split(" ")
    verb = words[0]
    rule = _VERBS.get(verb)
    if rule is None:
        return None
    if not (scene.hard and verb in _HANDLED):
        return rule(scene, state, words)
    manner = " ".join(words[-2:])
    after = rule(scene, state, words[:-2])
    if after is None or not any(condition.handling(verb) == manner for condition in CONDITIONS):
        return None
    thing = max(state.held, after.held)  # for the lamp, which has no condition, the object in hand counts
    if thing < 0 or scene.contents.conditions[thing].handling(verb) == manner:
        return after
    return after._replace(ruined=after.ruined | 1 << thing, won=False)


def admissible(scene: Scene, state: State) -> tuple[str, ...]:
    """All actions that apply, in a fixed order."""
    if state.won:
        return ()
    house, things = scene.house, scene.contents.names
    actions = [f"go to {name}" for place, name in enumerate(house.names) if place != state.at]
    if state.at >= 0:
        name, noun, closed = house.names[state.at], house.nouns[state.at], state.closed >> state.at & 1
        if 1 << state.at & house.closed:
            actions.append(f"{'open' if closed else 'close'} {name}")
        if not closed:
            here = [thing for thing, place in enumerate(state.places) if place == state.at]
            if here[:1] == [0]:
                actions += _manners(scene, f"use {things[0]}", "use")
            if state.held < 0:
                for thing in here:
                    if thing:
                        actions += _manners(scene, f"take {things[thing]} from {name}", "take")
            else:
                actions += _manners(scene, f"move {things[state.held]} to {name}", "move")
        if state.held >= 0:
            for verb, tool in TOOLS.items():
                if noun == tool and verb in OBJECTS[scene.contents.nouns[state.held]].kinds:
                    actions += _manners(scene, f"{verb} {things[state.held]} with {name}", verb)
    return (*actions, "inventory", "look")


def inventory(scene: Scene, state: State) -> str:
    """The object in hand, in a sentence."""
    if state.held < 0:
        return "You carry nothing."
    bit = 1 << state.held
    signs = [sign for sign, bits in (("clean", state.clean), ("hot", state.hot), ("cold", state.cold)) if bits & bit]
    return f"You carry {listed([' and '.join(signs) + ' ' * bool(signs) + scene.contents.names[state.held]])}."


def _manners(scene: Scene, action: str, verb: str) -> list[str]:
    return [f"{action} {condition.handling(verb)}" for condition in CONDITIONS] if scene.hard else [action]


def _sight(scene: Scene, state: State) -> str:
    """The description of the receptacle at which the agent stands."""
    if state.closed >> state.at & 1:
        return "It is closed."
    preposition = into(scene.house.nouns[state.at])
    contents = scene.contents
    here = [
        f"{contents.conditions[thing].adjective} {contents.names[thing]}" if scene.hard and thing else contents.names[thing]
        for thing, place in enumerate(state.places)
        if place == state.at
    ]
    return f"{preposition.capitalize()} it you see {listed(here)}." if here else f"There is nothing {preposition} it."


def _go(scene: Scene, state: State, words: Sequence[str]) -> State | None:
    place = scene.house.index.get(" ".join(words[2:])) if words[1:2] == ["to"] else None
    if place is None or place == state.at:
        return None
    moved = state._replace(at=place, kind="go")
    return moved._replace(text=f"You are at {scene.house.names[place]}. {_sight(scene, moved)}", won=_lit_up(scene, moved))


def _open_or_close(scene: Scene, state: State, words: Sequence[str]) -> State | None:
    verb, name = words[0], " ".join(words[1:])
    bit = 1 << state.at if state.at >= 0 else 0
    if (
        scene.house.index.get(name) != state.at
        or not bit & scene.house.closed
        or bool(bit & state.closed) != (verb == "open")
    ):
        return None
    turned = state._replace(closed=state.closed ^ bit, kind=verb)
    return turned._replace(text=f"You open {name}. {_sight(scene, turned)}" if verb == "open" else f"You close {name}.")


def _take(scene: Scene, state: State, words: Sequence[str]) -> State | None:
    thing = _two_names(scene, state, words, "from")
    if not thing or state.held >= 0 or state.places[thing] != state.at or state.closed >> state.at & 1:
        return None
    places = (*state.places[:thing], -1, *state.places[thing + 1 :])
    text = f"You take {scene.contents.names[thing]} from {scene.house.names[state.at]}."
    taken = state._replace(held=thing, places=places, kind="take", text=text)
    return taken._replace(won=_lit_up(scene, taken))


def _move(scene: Scene, state: State, words: Sequence[str]) -> State | None:
    thing = _two_names(scene, state, words, "to")
    if not thing or thing != state.held or state.closed >> state.at & 1:
        return None
    places = (*state.places[:thing], state.at, *state.places[thing + 1 :])
    name = scene.house.names[state.at]
    text = f"You put {scene.contents.names[thing]} {into(scene.house.nouns[state.at])} {name}."
    moved = state._replace(held=-1, places=places, kind="move", text=text)
    return moved._replace(won=_in_place(scene, moved))


def _treat(scene: Scene, state: State, words: Sequence[str]) -> State | None:
    verb, thing = words[0], _two_names(scene, state, words, "with")
    if not thing or thing != state.held or scene.house.nouns[state.at] != TOOLS[verb]:
        return None
    if verb not in OBJECTS[scene.contents.nouns[thing]].kinds:
        return None
    bit = 1 << thing
    text = f"You {verb} {scene.contents.names[thing]} with {scene.house.names[state.at]}."
    if verb == "clean":
        return state._replace(clean=state.clean | bit, kind=verb, text=text)
    hot = verb == "heat"
    return state._replace(
        hot=state.hot | bit if hot else state.hot & ~bit,
        cold=state.cold & ~bit if hot else state.cold | bit,
        kind=verb,
        text=text,
    )


def _use(scene: Scene, state: State, words: Sequence[str]) -> State | None:
    if scene.contents.index.get(" ".join(words[1:])) != 0 or state.places[0] != state.at or state.closed >> state.at & 1:
        return None
    text = f"You turn {'off' if state.lit else 'on'} {scene.contents.names[0]}."
    used = state._replace(lit=not state.lit, kind="use", text=text)
    return used._replace(won=_lit_up(scene, used))


def _inventory(scene: Scene, state: State, words: Sequence[str]) -> State | None:
    return state._replace(kind="inventory", text=inventory(scene, state)) if len(words) == 1 else None


def _look(scene: Scene, state: State, words: Sequence[str]) -> State | None:
    if len(words) != 1:
        return None
    text = f"You are at {scene.house.names[state.at]}. {_sight(scene, state)}" if state.at >= 0 else scene.house.text
    return state._replace(kind="look", text=text)


_VERBS: dict[str, Callable[[Scene, State, Sequence[str]], State | None]] = {
    "go": _go,
    "open": _open_or_close,
    "close": _open_or_close,
    "take": _take,
    "move": _move,
    **dict.fromkeys(TOOLS, _treat),
    "use": _use,
    "inventory": _inventory,
    "look": _look,
}


def _two_names(scene: Scene, state: State, words: Sequence[str], link: str) -> int:
    """The object of `VERB object link receptacle` if the agent is at the receptacle, else 0 (the lamp, never carried)."""
    if len(words) != 6 or words[3] != link or scene.house.index.get(f"{words[4]} {words[5]}", -2) != state.at:
        return 0
    return scene.contents.index.get(f"{words[1]} {words[2]}", 0)


def _lit_up(scene: Scene, state: State) -> bool:
    """Whether the goal is to look at an object under the lamp, and this state fulfils the goal."""
    return (
        state.lit
        and state.held >= 0
        and state.places[0] == state.at
        and scene.goal.kind == "light"
        and scene.contents.nouns[state.held] == scene.goal.object
        and not state.ruined >> state.held & 1
    )


def _in_place(scene: Scene, state: State) -> bool:
    """Whether the objects at this receptacle fulfil the goal, right after one was put down."""
    goal = scene.goal
    if scene.house.nouns[state.at] != goal.target:
        return False
    fit = ~state.ruined & {"clean": state.clean, "heat": state.hot, "cool": state.cold}.get(goal.kind, -1)
    nouns = scene.contents.nouns
    good = sum(p == state.at and fit >> o & 1 and nouns[o] == goal.object for o, p in enumerate(state.places))
    return good >= (2 if goal.kind == "two" else 1)


class HouseholdEnvironment:
    """One episode, made by `Household.make`."""

    fork_cost: Literal["cheap", "replay"] = "cheap"

    def __init__(self, scene_of: Callable[[Task], Scene]) -> None:
        self._scene_of = scene_of
        self._now: tuple[Scene, State] | None = None

    def reset(self, task: Task) -> Observation:
        """Start the task.

        Raises:
            UsageError: the task is not one of this world's.
        """
        scene = self._scene_of(task)
        self._now = scene, start(scene)
        return self._observe(*self._now)

    def step(self, action: str) -> Observation:
        """Carry out one action; one that does not apply changes nothing, `state_key` included."""
        scene, state = self._started()
        after = apply(scene, state, action)
        if after is None:
            listing = partial(admissible, scene, state)
            return Observation(NOTHING_HAPPENS, listing, 0.0, state.won, state.won, admissible=False)
        self._now = scene, after
        return self._observe(scene, after)

    def fork(self) -> HouseholdEnvironment:
        """An independent continuation, which shares the immutable state."""
        other = HouseholdEnvironment(self._scene_of)
        other._now = self._now
        return other

    def state_key(self) -> str:
        """Verb of the last action that applied, the answer to it, and the inventory."""
        scene, state = self._started()
        return f"{state.kind}|{state.text}|{inventory(scene, state)}"

    def close(self) -> None:
        """Nothing to release."""

    def _started(self) -> tuple[Scene, State]:
        if self._now is None:
            raise EnvironmentFailure("the household environment was asked for a step before reset(task)")
        return self._now

    @staticmethod
    def _observe(scene: Scene, state: State) -> Observation:
        return Observation(state.text, partial(admissible, scene, state), float(state.won), state.won, state.won)
