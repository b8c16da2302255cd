"""An episode of ALFWorld: a handle on a state of a game.

Invariants
----------
* What the agent reads is the engine's text, unchanged. Of the admissible actions only `help` is not listed (it is accepted).
* A fork and its origin answer byte for byte the same to the same actions, whatever siblings do.

A handle holds the state it is in and the actions that led there. Handles of one game share an engine and take turns by
going back to their own state; a handle whose engine has loaded another game since, or whose planner keeps no states,
replays its actions and compares what it then sees with what it saw before.
"""

from __future__ import annotations

import copy
from typing import Literal

from spark_rl.environments.alfworld.engine import LOCK, Engine, Shown, State, engine_for, has_registry, require
from spark_rl.environments.alfworld.games import Games
from spark_rl.errors import EnvironmentFailure, ReplayMismatch
from spark_rl.types import Observation, Task

__all__ = ["AlfworldEnvironment"]


class AlfworldEnvironment:
    """One episode: a state, and the actions that lead back to it. Threads may each play their own."""

    def __init__(self, games: Games, *, limit: int = 32, memoise: bool = True) -> None:
        """`limit` engines are kept; `memoise` does their pure work once, for the whole process."""
        require()
        self.fork_cost: Literal["cheap", "replay"] = "cheap" if has_registry() else "replay"
        self._games, self._limit, self._memoise = games, limit, memoise
        self._task: Task | None = None
        self._state: State | None = None
        self._actions: tuple[str, ...] = ()
        self._kind = ""

    def reset(self, task: Task) -> Observation:
        """Start the task: the room, then `Your task is to: ...`.

        Raises:
            EnvironmentFailure: the game is missing or corrupt.
        """
        self.close()
        with LOCK:
            self._state = self._engine(task).start()
        self._task = task
        return _observation(self._state.shown)

    def step(self, action: str) -> Observation:
        """Send a command; what is not admissible is answered "Nothing happens." and changes nothing."""
        with LOCK:
            state, engine = self._here()
            admissible = action.strip() in state.shown.actions
            self._state = engine.step(action)
        self._actions += (action,)
        self._kind = action.split()[0] if admissible else "invalid"
        return _observation(self._state.shown, admissible=admissible)

    def fork(self) -> AlfworldEnvironment:
        """An independent continuation, in constant time: all that a handle holds is immutable."""
        return copy.copy(self)

    def state_key(self) -> str:
        """Verb of the last action, the engine's text, what the agent carries; three lines or more."""
        if self._state is None:
            raise EnvironmentFailure("alfworld: state_key before reset; call reset(task) first")
        return "\n".join((self._kind, self._state.shown.text, ", ".join(self._state.shown.holding)))

    def close(self) -> None:
        """Forget the episode; the engine stays in the pool for the next one."""
        self._task, self._state, self._actions, self._kind = None, None, (), ""

    def _here(self) -> tuple[State, Engine]:
        """The game's engine, in this handle's state; needs the lock."""
        if self._state is None or self._task is None:
            raise EnvironmentFailure("alfworld: step before reset; call reset(task) first")
        engine = self._engine(self._task)
        if engine.restore(self._state):
            return self._state, engine
        state = engine.start()
        for action in self._actions:
            state = engine.step(action)
        if state.shown != self._state.shown:
            raise ReplayMismatch(
                f'alfworld task "{self._task.id}": {len(self._actions)} actions replayed end with "{state.shown.text}", '
                f'before they ended with "{self._state.shown.text}"; was the game file changed?'
            )
        self._state = state
        return state, engine

    def _engine(self, task: Task) -> Engine:
        return engine_for(self._games, task.id, limit=self._limit, memoise=self._memoise)


def _observation(shown: Shown, *, admissible: bool = True) -> Observation:
    return Observation(
        text=shown.text,
        listing=tuple(action for action in shown.actions if action != "help"),
        reward=float(shown.won),
        done=shown.won,
        success=shown.won,
        admissible=admissible,
    )
