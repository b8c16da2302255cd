"""An episode of ALFWorld: a handle on a place in a game.

Invariants
----------
* What the agent reads is the engine's text, unchanged. Of the admissible actions only `help` is not listed (it is accepted).
* A fork and its origin answer byte for byte the same to the same actions, whatever siblings do.
* A handle survives its engine: it can be pickled and continued in another process, and goes on after a worker has died.

A handle holds what led to its state and what was seen there (`Place`), and never an engine. Engines, here or in worker
processes, are shared by handles that take turns: each step goes back to the handle's own state first, or replays its
actions and compares what it then sees with what it saw before.
"""

from __future__ import annotations

import copy
import re
from typing import Literal

from spark_rl.environments.alfworld.engine import Engines, Place, Shown, has_registry, require
from spark_rl.environments.alfworld.games import Games
from spark_rl.environments.alfworld.workers import Workers
from spark_rl.errors import EnvironmentFailure
from spark_rl.types import Observation, Task

__all__ = ["AlfworldEnvironment"]

_PUT = re.compile(r"put (?P<thing>.+?) (?:in/on|in|on) (?P<place>.+)")
"""How `move X to Y` was said before ALFWorld 0.4, and is in older data sets."""


class AlfworldEnvironment:
    """One episode. Threads may each play their own."""

    def __init__(
        self,
        games: Games,
        *,
        limit: int = 32,
        memoise: bool = True,
        workers: int = 0,
        timeout: float = 60.0,
        accept_put: bool = False,
    ) -> None:
        """`limit` engines are kept, in this process or over `workers`; `memoise` does their pure work once a process.

        `timeout` is how many seconds a worker has for a call; with `accept_put`, `put X in/on Y` is `move X to Y`.
        """
        require()
        self.fork_cost: Literal["cheap", "replay"] = "cheap" if has_registry() else "replay"
        engines = Engines(games, -(-limit // max(workers, 1)), memoise)
        self._engines = Workers(engines, workers, timeout) if workers else engines
        self.out_of_process = workers > 0
        self._accept_put = accept_put
        self._place: Place | None = None
        self._kind = ""

    def reset(self, task: Task) -> Observation:
        """Start the task: the room, then `Your task is to: ...`.

        Raises:
            EnvironmentFailure: the game is missing or corrupt, or the engine hangs.
        """
        self.close()
        self._place = self._engines.start(task.id)
        return _observation(self._place.shown)

    def step(self, action: str) -> Observation:
        """Send a command; what is not admissible is answered "Nothing happens." and changes nothing.

        Raises:
            ReplayMismatch: the state had to be rebuilt, and the game is not what it was.
            EnvironmentFailure: before `reset`, or the engine hangs or dies at it.
        """
        if self._place is None:
            raise EnvironmentFailure("alfworld: step before reset; call reset(task) first")
        if self._accept_put and (said := _PUT.fullmatch(action.strip())):
            action = f"move {said['thing']} to {said['place']}"
        admissible = action.strip() in self._place.shown.actions
        self._place = self._engines.step(self._place, action)
        self._kind = action.split()[0] if admissible else "invalid"
        return _observation(self._place.shown, admissible=admissible)

    def fork(self) -> AlfworldEnvironment:
        """An independent continuation, in constant time: a step makes a new place and leaves the old one as it was."""
        return copy.copy(self)

    def state_key(self) -> str:
        """Verb of the last action, the engine's text, what the agent carries; three lines or more."""
        if self._place is None:
            raise EnvironmentFailure("alfworld: state_key before reset; call reset(task) first")
        return "\n".join((self._kind, self._place.shown.text, ", ".join(self._place.shown.holding)))

    def close(self) -> None:
        """Forget the episode; the engine stays in the pool for the next one."""
        self._place, self._kind = None, ""


def _observation(shown: Shown, *, admissible: bool = True) -> Observation:
    return Observation(
        text=shown.text,
        listing=tuple(action for action in shown.actions if action != "help"),
        reward=float(shown.won),
        done=shown.won,
        success=shown.won,
        admissible=admissible,
    )
