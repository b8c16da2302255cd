"""An episode of ALFWorld: a handle on a place in a game.

Invariants
----------
* The agent reads the engine's text, unchanged. The list of actions leaves out `help` alone, which is accepted all the same.
* A fork and its origin answer byte for byte the same to the same actions, whatever siblings do.
* A handle survives its engine: it can be pickled and continued in another process, and goes on after a worker has died.

A handle holds the actions that led to its state and the last observation (`Place`), and never an engine. Handles share
the engines of this process or of worker processes and take turns. Each step first restores the handle's own state, or
replays the handle's actions and compares the observation with the one before.
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
"""The form of `move X to Y` before ALFWorld 0.4 and in older data sets."""


class AlfworldEnvironment:
    """One episode. Several threads may play, each its own episode."""

    def __init__(
        self,
        games: Games,
        *,
        limit: int = 32,
        memoise: bool = True,
        cache: int = 0,
        workers: int = 0,
        timeout: float = 60.0,
        accept_put: bool = False,
    ) -> None:
        """An episode without a task; see the fields of `Alfworld`.

        Args:
            games: the set of games.
            limit: most engines, in this process or over all workers.
            memoise: cache the engines' pure work.
            cache: most megabytes of translated games on disk, with `memoise`; 0: none.
            workers: processes that hold the engines; 0: this process.
            timeout: seconds that a worker has for a call.
            accept_put: take `put X in/on Y` as `move X to Y`.
        """
        require()
        self.fork_cost: Literal["cheap", "replay"] = "cheap" if has_registry() else "replay"
        engines = Engines(games, -(-limit // max(workers, 1)), memoise, cache)
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
        """Send a command; one that is not admissible changes nothing and is answered "Nothing happens.".

        Raises:
            ReplayMismatch: the state had to be rebuilt, and the game has changed.
            EnvironmentFailure: before `reset`, or the engine hangs or dies at this command.
        """
        if self._place is None:
            raise EnvironmentFailure("alfworld: step before reset; call reset(task) first")
        if self._accept_put and (match := _PUT.fullmatch(action.strip())):
            action = f"move {match['thing']} to {match['place']}"
        admissible = action.strip() in self._place.shown.actions
        self._place = self._engines.step(self._place, action)
        self._kind = action.split()[0] if admissible else "invalid"
        return _observation(self._place.shown, admissible=admissible)

    def fork(self) -> AlfworldEnvironment:
        """An independent continuation, in constant time: a step makes a new place and does not change the old one."""
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
