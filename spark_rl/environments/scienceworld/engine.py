"""Worlds that survive their Java process: a place holds the actions that lead to it, and a live world is at a place.

Invariants
----------
* A `Place` is a value, and outlives its world. Where the world is gone, the place's actions are replayed in a new world, and
  all observations of the replay must equal the earlier ones.
* A `Live` world belongs to one episode, and is at the place of this episode.
* A copy of a world continues as the original does. Where the process cannot copy, the actions are replayed instead.

A process that dies, or does not answer in time, is counted (`lost`) and replaced, and the call is repeated. Where the second
process is lost at the same call, the call fails and names the action.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from spark_rl.common.seeding import derive
from spark_rl.environments.scienceworld.catalogue import named
from spark_rl.environments.scienceworld.jvm import Jvm, Launch, Lost, machines
from spark_rl.errors import EnvironmentFailure, ReplayMismatch

__all__ = ["Engines", "Live", "Place", "Shown"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """The engine's answer to a step."""

    text: str
    score: float
    """0 to 1, below 0 when the task is lost."""
    completed: bool
    ticks: int
    """Simulated time; refused actions and looks take none, `wait` takes ten."""
    known: bool
    """Whether the engine knew the action."""
    reached: float
    """Share of the task's sub-goals that are reached; some sub-goals are optional."""
    room: str
    inventory: str


@dataclass(frozen=True, slots=True)
class Place:
    """A point of an episode: the actions that lead there, the last answer, and a digest of all answers on the way."""

    task_id: str
    actions: tuple[str, ...]
    shown: Shown
    trail: bytes


class Live:
    """A world in a process, released when this handle is garbage-collected."""

    __slots__ = ("generation", "jvm", "world")

    def __init__(self, jvm: Jvm, generation: int, world: str) -> None:
        self.jvm, self.generation, self.world = jvm, generation, world

    def __del__(self) -> None:
        self.jvm.drop(self.generation, self.world)


@dataclass(frozen=True)
class Engines:
    """Some Java processes, and the settings of the worlds in them. Equal values share processes."""

    launch: Launch
    jvms: int
    simplifications: str
    seeding: Literal["step", "stock"]

    def start(self, task_id: str) -> tuple[Live, Place]:
        """A world at the start of a task.

        Raises:
            EnvironmentFailure: the engine cannot build the task, or dies of it.
            UsageError: there is no such task, or Java is missing.
        """
        named(task_id)
        return self._twice(task_id, "reset", lambda jvm: self._load(jvm, task_id))

    def step(self, live: Live | None, place: Place, action: str) -> tuple[Live, Place]:
        """The world after an action, and its place; `live` itself is changed where it is still alive.

        Raises:
            ReplayMismatch: the world had to be rebuilt, and has changed.
            EnvironmentFailure: the engine dies or fails at the action.
        """

        def act(jvm: Jvm) -> tuple[Live, Place]:
            world = self._reach(jvm, live, place)
            return world, _step(jvm, world, place, action)

        return self._twice(place.task_id, action, act)

    def fork(self, live: Live | None, place: Place) -> tuple[Live, Live | None]:
        """The world of a place, and its copy; None where the process cannot copy, so that the fork will replay."""

        def copy(jvm: Jvm) -> tuple[Live, Live | None]:
            world = self._reach(jvm, live, place)
            if not jvm.exact:
                return world, None
            twin = Live(jvm, jvm.generation, jvm.name_world())
            jvm.ask("fork", world.world, twin.world)
            return world, twin

        return self._twice(place.task_id, "fork", copy)

    def tell(self, live: Live | None, place: Place, question: Literal["actions", "sight"]) -> tuple[Live, list[str]]:
        """The engine's answer about a place: all valid `actions`, or `sight`: forms of actions, an empty line, objects."""

        def ask(jvm: Jvm) -> tuple[Live, list[str]]:
            world = self._reach(jvm, live, place)
            return world, jvm.ask(question, world.world)

        return self._twice(place.task_id, question, ask)

    def gold(self, task_id: str) -> list[str]:
        """The engine's own solution, unchanged; some take seconds to find."""
        kind, number = named(task_id)
        return self._twice(task_id, "gold", lambda jvm: jvm.ask("gold", kind, str(number), self.simplifications))

    def describe(self, kind: str) -> tuple[str, ...]:
        """The sentence of each variation of a task type."""
        return _described(self, kind)

    def about(self) -> str:
        """The version of Java and the kind of forks, in a sentence."""

        def ask(jvm: Jvm) -> str:
            jvm.ask("memory")
            return f"Java {jvm.java}, forks by {'copy' if jvm.exact else 'taking the actions again'}"

        return self._twice("boil/0", "hello", ask)

    def lost(self) -> int:
        """Number of processes that were lost so far."""
        return sum(jvm.losses for jvm in machines(self.launch, self.jvms))

    def processes(self) -> list[int | None]:
        """Ids of the processes; None where none runs."""
        return [jvm.pid for jvm in machines(self.launch, self.jvms)]

    def _twice(self, task_id: str, what: str, call: Callable[[Jvm], T]) -> T:
        """The call's result, from a second process where the first one is lost."""
        jvm = machines(self.launch, self.jvms)[zlib.crc32(task_id.encode()) % self.jvms]
        with jvm.lock:
            try:
                return call(jvm)
            except Lost:
                try:
                    return call(jvm)
                except Lost as lost:
                    raise EnvironmentFailure(
                        f'scienceworld: Java {lost} at "{what}" of task "{task_id}", in a second process too; '
                        f"raise --env.heap ({self.launch.heap}) or --env.timeout ({self.launch.timeout:g}), "
                        "or leave the task out"
                    ) from lost

    def _load(self, jvm: Jvm, task_id: str) -> tuple[Live, Place]:
        kind, number = named(task_id)
        name = jvm.name_world()
        seed = str(derive("scienceworld", task_id))
        reply = jvm.ask("load", name, kind, str(number), self.simplifications, self.seeding, seed)
        live = Live(jvm, jvm.generation, name)  # after the call, which may have started the process
        shown = _shown(reply, task_id, "reset")
        return live, Place(task_id, (), shown, _trail(b"", shown))

    def _reach(self, jvm: Jvm, live: Live | None, place: Place) -> Live:
        """The live world at a place, or, where it is gone, a new world that is brought there."""
        if live is not None and live.jvm is jvm and live.generation == jvm.generation and jvm.pid is not None:
            return live
        live, reached = self._load(jvm, place.task_id)
        for action in place.actions:
            reached = _step(jvm, live, reached, action)
        if reached.trail != place.trail:
            raise ReplayMismatch(
                f'scienceworld task "{place.task_id}": {len(place.actions)} actions replayed end with '
                f'"{reached.shown.text[:120]}", before they ended with "{place.shown.text[:120]}"; '
                "is it another version of the engine?"
            )
        return live


@lru_cache(maxsize=256)
def _described(engines: Engines, kind: str) -> tuple[str, ...]:
    return tuple(engines._twice(f"{kind}/0", "describe", lambda jvm: jvm.ask("describe", kind)))  # pyright: ignore[reportPrivateUsage]


def _step(jvm: Jvm, live: Live, place: Place, action: str) -> Place:
    shown = _shown(jvm.ask("step", live.world, action), place.task_id, action)
    return Place(place.task_id, (*place.actions, action), shown, _trail(place.trail, shown))


def _shown(reply: list[str], task_id: str, action: str) -> Shown:
    text, score, completed, ticks, known, reached, error, room, inventory = reply
    if error:
        raise EnvironmentFailure(f'scienceworld: the engine failed at "{action}" of task "{task_id}" ({error})')
    return Shown(text, float(score), completed == "true", int(ticks), known == "true", float(reached), room, inventory)


def _trail(before: bytes, shown: Shown) -> bytes:
    return hashlib.blake2b(before + repr(shown).encode(), digest_size=16).digest()
