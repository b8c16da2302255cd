"""ALFWorld's text engine behind a small interface: load a game, take a step, save a state, restore it.

Invariants
----------
* A `State` is a value: after `engine.restore(state)` returned True the engine answers exactly as it did when the state
  was saved, whatever was played in between. `restore` returns False, and changes nothing, where the engine has loaded
  another game since, or the planner library has no registry of states.
* A `Place` outlives its state: when the engine is gone, or in another process, the actions of the place are replayed. The
  replay must end with the same text, actions and inventory, or the step is refused.

Mechanism
---------
The engine is TextWorld's `PddlEnv` with ALFWorld's object names. Its state lives in two places: in the planner library,
which numbers the states it has met since the game was loaded, and in Python tables of facts. A `State` holds the
number and copies of the tables, so a restore takes a fraction of a millisecond at any depth, and siblings share one
engine by taking turns. Each engine costs a private copy of the planner library (34 MB of address space), which cannot be
unloaded. Engines are therefore pooled by game; when the pool is full, the engine used longest ago loads the next game.

One lock serves all engines of a process: loading a game rewrites `sys.argv`, `sys.stdout` and options of the translator.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import gc
import importlib
import io
import itertools
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Mapping, Set
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from spark_rl.environments.alfworld.games import Games
from spark_rl.environments.alfworld.memo import install
from spark_rl.environments.alfworld.translations import translation
from spark_rl.errors import EnvironmentFailure, MissingExtra, ReplayMismatch

__all__ = ["LOCK", "Engine", "Engines", "Place", "Shown", "State", "has_registry", "require", "undisturbed"]

LOCK = threading.RLock()
"""Held around every use of an engine."""

REFUSAL = "Nothing happens."
"""The engine's answer to a command that is not admissible; nothing else changes."""
_TABLES = ("_facts", "_vars_by_type")


_Table = Mapping[object, frozenset[object]]
"""Sets of facts or variables by their kind, as TextWorld holds them."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of a state that the agent can observe."""

    text: str
    """The engine's answer, unchanged."""
    actions: tuple[str, ...]
    """Admissible commands, sorted, `help` included."""
    won: bool
    holding: tuple[str, ...]
    """What the agent carries, sorted."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """The Python side of a state: never changed, and copied when the state is restored."""

    number: int
    """The planner's number of the state."""
    tables: Mapping[str, _Table]
    """Copies of TextWorld's tables, by the names in `_TABLES`."""
    variables: Mapping[str, object]
    """TextWorld's variables by name."""
    counts: Mapping[str, int]
    """How many variables there are of each type."""
    operators: Mapping[object, object]
    """The applicable actions."""
    commands: Mapping[str, object]
    """The admissible commands, as the environment holds them."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A state of one loaded game. Two states are the same only when they are the same object."""

    shown: Shown
    loading: int
    """Number of the loading that the state belongs to; the planner forgets its states when a game is loaded."""
    memory: _Memory | None
    """What `Engine.restore` needs; None where the planner has no registry of states."""


@dataclass(slots=True, eq=False)
class Place:
    """A point of an episode: the actions that led there and what the agent saw there. It is pickled without its state."""

    task_id: str
    actions: tuple[str, ...]
    shown: Shown
    state: State | None = None
    """The engine's state, in the process that made it; set again after a replay. Needs `LOCK`.

    After a refused action it is the state before the action, so its text may differ from the text of `shown`."""

    def __reduce__(self) -> tuple[type[Place], tuple[object, ...]]:
        return Place, (self.task_id, self.actions, self.shown)

    def refused(self, action: str) -> Place:
        """The place after an action that is not admissible: the same state, with the engine's refusal as its text."""
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
    library = ctypes.CDLL(importlib.import_module("fast_downward.interface").DOWNWARD_LIB_PATH)
    return hasattr(library, "get_state_id") and hasattr(library, "set_state_id")


class Engine:
    """One planner library with one game loaded. Its methods need `LOCK`."""

    _loadings = itertools.count()

    def __init__(self) -> None:
        infos = importlib.import_module("textworld").EnvInfos(admissible_commands=True, won=True)
        self.game: tuple[Games, str] | None = None
        self._env: Any = importlib.import_module("textworld.envs").PddlEnv(infos)  # TextWorld's types are partial
        self._loading = -1
        self._first: State | None = None
        self._now: State | None = None

    def load(self, games: Games, task_id: str, *, cache: int = 0) -> None:
        """Load a game.

        Args:
            games: the set of games.
            task_id: which of them.
            cache: most megabytes of translated games on disk; 0: the disk is not used.

        Raises:
            EnvironmentFailure: it is missing or the engine cannot read it; the message names it.
        """
        self.game = self._first = self._now = None
        _forget_facts()
        self._loading = next(self._loadings)
        game = games.read(task_id)
        try:
            with undisturbed():
                if cache:
                    translation(game["pddl_domain"], game["pddl_problem"], cache)  # from disk into memory
                # The engine gets the game as a value: it would leave a file open.
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
            with undisturbed():
                self._first = self._reset()
        return self._first

    def step(self, command: str) -> State:
        """Send a command; the engine answers "Nothing happens." to one that is not admissible, and changes nothing."""
        self._now = None  # until the step has succeeded, the engine's state is not known
        game_state, _, _ = self._env.step(command)
        return self._save(game_state)

    def restore(self, state: State) -> bool:
        """Go back to a state of this loading; False where that is impossible and actions have to be replayed."""
        if state is self._now:
            return True
        memory = state.memory
        if state.loading != self._loading or memory is None:
            return False
        self._env.downward_lib.set_state_id(memory.number)
        facts = self._env._pddl_state
        for name in _TABLES:
            setattr(facts, name, defaultdict(set, {key: set(values) for key, values in memory.tables[name].items()}))
        facts._vars_by_name = dict(memory.variables)
        facts._var_counts = copy.copy(memory.counts)
        facts._operators = memory.operators
        self._env.state = memory.commands
        self._now = state
        return True

    def plan(self, simplify: Callable[[str, Collection[str]], str]) -> tuple[str, ...]:
        """The planner's commands that win from the engine's state; empty when there are none.

        Args:
            simplify: makes a problem of fewer choices from the game's text and the ids of what the agent carries.
        """
        # The stock function: `memo` replaces the one in `fast_downward`, and planning is slow with its translations.
        pddl2sas = importlib.import_module("fast_downward.interface").pddl2sas
        facts = self._env._pddl_state
        problem = simplify(facts.pddl_problem, [thing for thing, _ in self._held()])
        with undisturbed():
            _, text = pddl2sas(facts._logic.domain, problem, optimize=True)
            self._env.downward_lib.load_sas_replan(text.encode())
            return tuple(facts.replan(self._env._entity_infos))

    def _reset(self) -> State:
        return self._save(self._env.reset())

    def _save(self, game_state: Any) -> State:
        """The engine's present state; it holds only what the next step reads."""
        facts = self._env._pddl_state
        shown = Shown(
            text=game_state.feedback,
            actions=tuple(game_state["admissible_commands"]),
            won=bool(game_state["won"]),
            holding=tuple(sorted(name for _, name in self._held())),
        )
        memory: _Memory | None = None
        if has_registry():
            start = self._first.memory if self._first is not None else None
            first: Mapping[str, _Table] = start.tables if start is not None else {}
            memory = _Memory(
                number=self._env.downward_lib.get_state_id(),
                tables={name: _copied(getattr(facts, name), first.get(name, {})) for name in _TABLES},
                variables=dict(facts._vars_by_name),
                counts=facts._var_counts.copy(),
                operators={
                    key: SimpleNamespace(id=operator.id, nb_effect_atoms=operator.nb_effect_atoms)
                    for key, operator in facts._operators.items()
                },
                commands={name: game_state[name] for name in ("_valid_commands", "_valid_actions")},
            )
        self._now = State(shown, self._loading, memory)
        return self._now

    def _held(self) -> list[tuple[str, str]]:
        """(id, name) of what the agent carries."""
        facts = self._env._pddl_state._facts
        held = [fact.arguments[1].name for signature, some in facts.items() if signature.name == "holds" for fact in some]
        return [(thing, self._env._entity_infos[thing].name) for thing in held]

    def _name_objects(self) -> None:
        """Give objects the names that the agent reads (`fridge 1`), as ALFWorld's wrapper does without shuffling."""
        entities = self._env._entity_infos
        names = importlib.import_module("alfworld.agents.utils.misc")
        demangler = names.Demangler(game_infos=entities, shuffle=False)
        for entity in entities.values():
            entity.name = demangler.demangle_alfred_name(entity.id)


_engines: dict[tuple[Games, str], Engine] = {}
"""Engines by the game they have loaded, the one used longest ago first."""


@dataclass(frozen=True)
class Engines:
    """The engines of this process, which play a set of games. Equal values share loaded engines."""

    games: Games
    limit: int = 32
    """Most engines of this process."""
    memoise: bool = True
    cache: int = 0
    """Most megabytes of translated games on disk, with `memoise`; 0: none."""

    def start(self, task_id: str) -> Place:
        """The place at which a game starts.

        Raises:
            EnvironmentFailure: the game is missing or corrupt.
        """
        with LOCK:
            state = self.engine(task_id).start()
        return Place(task_id, (), state.shown, state)

    def step(self, place: Place, action: str) -> Place:
        """The place to which an action leads. The engine is not asked about actions that are not admissible: that is slow.

        Raises:
            ReplayMismatch: the actions up to here were replayed, and ended with another observation than before.
        """
        if action.strip() not in place.shown.actions:
            return place.refused(action)
        with LOCK:
            state = self._reach(place).step(action)
        return Place(place.task_id, (*place.actions, action), state.shown, state)

    def engine(self, task_id: str) -> Engine:
        """The engine that has a game loaded. Needs `LOCK`.

        Where no engine has loaded it, a new one does; where there are `limit` engines, the one used longest ago does.

        Raises:
            EnvironmentFailure: the game is missing or the engine cannot read it.
        """
        game = self.games, task_id
        if (engine := _engines.pop(game, None)) is None:
            engine = _engines.pop(next(iter(_engines))) if len(_engines) >= self.limit else Engine()
        _engines[game] = engine  # even if the loading fails: a library cannot be unloaded, only used again
        if engine.game != game:
            engine.load(self.games, task_id, cache=self.cache if self.memoise and install() else 0)
        return engine

    def _reach(self, place: Place) -> Engine:
        """The game's engine, brought to the state of this place."""
        engine = self.engine(place.task_id)
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
        place.state = state  # forks of this place need not replay
        return engine


def _copied(table: Mapping[object, Set[object]], first: _Table) -> _Table:
    """A frozen copy that shares unchanged sets with the copy made at the start."""
    return {key: first[key] if first.get(key) == values else frozenset(values) for key, values in table.items()}


def _forget_facts() -> None:
    """Empty TextWorld's table of every fact it has ever met, some 0.8 MB a game; facts are compared by value without it."""
    importlib.import_module("mementos.core")._memento_cache.clear()


@contextlib.contextmanager
def undisturbed() -> Generator[None]:
    """For the translator: restore `sys.argv` and `sys.stdout`, which the translator overwrites, and drop its output.

    Garbage collection is off meanwhile: over the translator's many small objects it takes two fifths of the time in vain.
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
