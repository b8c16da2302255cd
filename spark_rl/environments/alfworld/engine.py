# pyright: standard
"""ALFWorld's text engine behind a small door: games are loaded, states are saved and gone back to.

Invariants
----------
* A `State` is a value: after `engine.restore(state)` returned True the engine answers exactly as it did when the state
  was made, whatever was played in between. It returns False, and changes nothing, when it cannot: the engine has loaded
  another game since, or the planner library has no registry of states.
* A `Place` outlives its state: with the engine gone, or in another process, its actions are replayed, and a step is only
  taken where all that is shown equals what was shown before.

Mechanism
---------
The engine is TextWorld's `PddlEnv` with ALFWorld's object names. Its state lives in two places: in the planner library,
which numbers the states it has met since the game was loaded, and in Python tables of facts. A state keeps the
number and copies of the tables, so going back takes a fraction of a millisecond at any depth, and siblings share one
engine by taking turns. Each engine costs a private copy of the planner library (34 MB of address space) that is
never unloaded; so engines are pooled by game, and the one used longest ago is given the next game when the pool is full.

One lock serves all engines of a process: loading a game rewrites `sys.argv`, `sys.stdout` and options of the translator.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import io
import itertools
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from spark_rl.environments.alfworld.games import Games
from spark_rl.environments.alfworld.memo import install
from spark_rl.errors import EnvironmentFailure, MissingExtra, ReplayMismatch

__all__ = ["LOCK", "Engine", "Engines", "Place", "Shown", "State", "engine_for", "has_registry", "require"]

LOCK = threading.RLock()
"""Held around every use of an engine."""

REFUSAL = "Nothing happens."
"""The engine's answer to a command that is not admissible; nothing else changes."""
_TABLES = ("_facts", "_vars_by_type")


@dataclass(frozen=True, slots=True)
class Shown:
    """What the agent can tell of a state."""

    text: str
    """The engine's answer, unchanged."""
    actions: tuple[str, ...]
    """Admissible commands, sorted, `help` included."""
    won: bool
    holding: tuple[str, ...]
    """What the agent carries, sorted."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A state of one loaded game. Two states are the same only when they are the same object."""

    shown: Shown
    loading: int
    """Number of the loading it belongs to; the planner forgets its states when a game is loaded."""
    number: int | None
    """The planner's number of it; None where the planner has no registry."""
    memory: dict[str, Any]
    """Python's side: never changed, copied when it is put back."""


@dataclass(slots=True, eq=False)
class Place:
    """Where an episode stands: what led there and what was seen there. It is pickled without its state."""

    task_id: str
    actions: tuple[str, ...]
    shown: Shown
    state: State | None = None
    """The engine's, in the process that made it; put back when a replay has found it again. Needs `LOCK`.

    After a refused action it is the state before, so that its text may differ from what is shown here."""

    def __reduce__(self) -> tuple[type[Place], tuple[Any, ...]]:
        return Place, (self.task_id, self.actions, self.shown)

    def refused(self, action: str) -> Place:
        """Where an action that is not admissible leads: here, with the engine's answer to it."""
        return Place(self.task_id, (*self.actions, action), replace(self.shown, text=REFUSAL), self.state)


def require() -> None:
    """Import the engine.

    Raises:
        MissingExtra: textworld, the planner or alfworld is not installed.
    """
    try:
        for module in ("textworld.envs", "fast_downward", "alfworld.agents.utils.misc"):
            importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra("ALFWorld", "alfworld") from error


@functools.cache
def has_registry() -> bool:
    """Whether the installed planner library numbers its states (some builds lack the two functions)."""
    from fast_downward.interface import DOWNWARD_LIB_PATH

    library = ctypes.CDLL(DOWNWARD_LIB_PATH)
    return hasattr(library, "get_state_id") and hasattr(library, "set_state_id")


class Engine:
    """One planner library with one game loaded. Its methods need `LOCK`."""

    _loadings = itertools.count()

    def __init__(self) -> None:
        from textworld import EnvInfos
        from textworld.envs import PddlEnv

        self.game: tuple[Games, str] | None = None
        self._env: Any = PddlEnv(EnvInfos(admissible_commands=True, won=True))
        self._loading = -1
        self._first: State | None = None
        self._now: State | None = None

    def load(self, games: Games, task_id: str) -> None:
        """Load a game.

        Raises:
            EnvironmentFailure: it is missing or the engine cannot read it; the message names it.
        """
        self.game = self._first = self._now = None
        _forget_facts()
        self._loading = next(self._loadings)
        game = games.read(task_id)
        try:
            with _undisturbed():
                # Given as a value: given a path, the engine would leave the file open.
                self._env.load(game)
                self._name_objects()
                self._first = self._reset()
        except (Exception, SystemExit) as error:  # the translator leaves by sys.exit on what it cannot read
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise EnvironmentFailure(
                f'game "{task_id}" cannot be loaded ({reason}); unpack the ALFWorld archive again'
            ) from error
        self.game = games, task_id

    def start(self) -> State:
        """Go to the state before the first action."""
        if self._first is None:
            raise EnvironmentFailure("no game is loaded")
        if not self.restore(self._first):
            with _undisturbed():
                self._first = self._reset()
        return self._first

    def step(self, command: str) -> State:
        """Send a command; one that is not admissible is answered "Nothing happens." and changes nothing."""
        self._now = None  # until the step has succeeded, the engine is in no known state
        game_state, _, _ = self._env.step(command)
        return self._save(game_state)

    def restore(self, state: State) -> bool:
        """Go back to a state of this loading; False when that cannot be done and actions have to be replayed."""
        if state is self._now:
            return True
        if state.loading != self._loading or state.number is None:
            return False
        self._env.downward_lib.set_state_id(state.number)
        facts, memory = self._env._pddl_state, state.memory
        for name in _TABLES:
            setattr(facts, name, defaultdict(set, {key: set(values) for key, values in memory[name].items()}))
        facts._vars_by_name = dict(memory["_vars_by_name"])
        facts._var_counts = memory["_var_counts"].copy()
        facts._operators = memory["_operators"]
        self._env.state = memory["commands"]
        self._now = state
        return True

    def plan(self, simplify: Callable[[str, Collection[str]], str]) -> tuple[str, ...]:
        """Commands that win from where the engine is, found by the planner; empty when there are none.

        `simplify` makes a problem of fewer choices out of the game's, given its text and the ids of what the agent carries.
        """
        from fast_downward.interface import pddl2sas  # the original: `memo` keeps translations that planning is slow with

        facts = self._env._pddl_state
        problem = simplify(facts.pddl_problem, [thing for thing, _ in self._held()])
        with _undisturbed():
            _, text = pddl2sas(facts._logic.domain, problem, optimize=True)
            self._env.downward_lib.load_sas_replan(text.encode())
            return tuple(facts.replan(self._env._entity_infos))

    def _reset(self) -> State:
        return self._save(self._env.reset())

    def _save(self, game_state: Any) -> State:
        """Make a state of what the engine is in now; only what the next step reads is kept."""
        facts = self._env._pddl_state
        shown = Shown(
            text=game_state.feedback,
            actions=tuple(game_state["admissible_commands"]),
            won=bool(game_state["won"]),
            holding=tuple(sorted(name for _, name in self._held())),
        )
        number: int | None = None
        memory: dict[str, Any] = {}
        if has_registry():
            number = self._env.downward_lib.get_state_id()
            first = self._first.memory if self._first is not None else {}
            memory = {name: _copied(getattr(facts, name), first.get(name, {})) for name in _TABLES}
            memory["_vars_by_name"] = dict(facts._vars_by_name)
            memory["_var_counts"] = facts._var_counts.copy()
            memory["_operators"] = {
                key: SimpleNamespace(id=operator.id, nb_effect_atoms=operator.nb_effect_atoms)
                for key, operator in facts._operators.items()
            }
            memory["commands"] = {name: game_state[name] for name in ("_valid_commands", "_valid_actions")}
        self._now = State(shown, self._loading, number, memory)
        return self._now

    def _held(self) -> list[tuple[str, str]]:
        """(id, name) of what the agent carries."""
        facts = self._env._pddl_state._facts
        held = [fact.arguments[1].name for signature, some in facts.items() if signature.name == "holds" for fact in some]
        return [(thing, self._env._entity_infos[thing].name) for thing in held]

    def _name_objects(self) -> None:
        """Give objects the names the agent reads (`fridge 1`), as ALFWorld's wrapper does without shuffling."""
        from alfworld.agents.utils.misc import Demangler

        entities = self._env._entity_infos
        demangler = Demangler(game_infos=entities, shuffle=False)
        for entity in entities.values():
            entity.name = demangler.demangle_alfred_name(entity.id)


_engines: dict[tuple[Games, str], Engine] = {}
"""Engines by the game they have loaded, the one used longest ago first."""


def engine_for(games: Games, task_id: str, *, limit: int, memoise: bool) -> Engine:
    """The engine that has this game loaded, else a new one, or beyond `limit` the one used longest ago, loaded with it.

    Needs `LOCK`. Raises `EnvironmentFailure` as `Engine.load` does.
    """
    game = games, task_id
    if (engine := _engines.pop(game, None)) is None:
        if memoise:
            install()
        engine = _engines.pop(next(iter(_engines))) if len(_engines) >= limit else Engine()
    _engines[game] = engine  # even if loading fails: a library cannot be unloaded, only used again
    if engine.game != game:
        engine.load(games, task_id)
    return engine


@dataclass(frozen=True)
class Engines:
    """Who plays a set of games: the engines of this process. Equal values share what is loaded."""

    games: Games
    limit: int = 32
    """Most engines of this process."""
    memoise: bool = True

    def start(self, task_id: str) -> Place:
        """Where a game starts.

        Raises:
            EnvironmentFailure: it is missing or corrupt.
        """
        with LOCK:
            state = self._engine(task_id).start()
        return Place(task_id, (), state.shown, state)

    def step(self, place: Place, action: str) -> Place:
        """Where an action leads. What is not admissible is answered here: the engine would look for all actions anew.

        Raises:
            ReplayMismatch: the actions up to here were replayed, and show something else now.
        """
        if action.strip() not in place.shown.actions:
            return place.refused(action)
        with LOCK:
            state = self._reach(place).step(action)
        return Place(place.task_id, (*place.actions, action), state.shown, state)

    def _reach(self, place: Place) -> Engine:
        """The game's engine, in the state of this place."""
        engine = self._engine(place.task_id)
        if place.state is not None and engine.restore(place.state):
            return engine
        state = engine.start()
        for action in place.actions:
            state = engine.step(action)
        if state.shown != place.shown:
            raise ReplayMismatch(
                f'alfworld task "{place.task_id}": {len(place.actions)} actions replayed end with "{state.shown.text}", '
                f'before they ended with "{place.shown.text}"; was the game file changed?'
            )
        place.state = state  # its forks need not replay
        return engine

    def _engine(self, task_id: str) -> Engine:
        return engine_for(self.games, task_id, limit=self.limit, memoise=self.memoise)


def _copied(table: dict[Any, set[Any]], first: dict[Any, frozenset[Any]]) -> dict[Any, frozenset[Any]]:
    """A frozen copy that shares what has not changed with the copy made at the start."""
    return {key: first[key] if first.get(key) == values else frozenset(values) for key, values in table.items()}


def _forget_facts() -> None:
    """Drop the table in which TextWorld keeps every fact it has ever met, some 0.8 MB a game: facts are equal by value."""
    importlib.import_module("mementos.core")._memento_cache.clear()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep `sys.argv` and `sys.stdout`, which the translator overwrites, and drop what it prints.

    The collector of cycles waits: over the translator's many small objects it takes two fifths of the time, for nothing.
    """
    argv, collects = sys.argv, gc.isenabled()
    gc.disable()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.argv = argv
        if collects:
            gc.enable()
