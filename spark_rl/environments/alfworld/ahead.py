"""Games translated ahead: a helper puts translations on disk while this process does something else.

Invariants
----------
* Nothing depends on the helper. A game that it has not translated in time is translated by whoever plays it, with the same
  result; an error of a game is left to whoever plays it.
* The helper takes only time that nobody else wants (the scheduling class for idle work, where the system has one).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spark_rl.common.helpers import Helper, Lost
from spark_rl.common.process_local import ProcessLocal
from spark_rl.environments.alfworld.engine import require, undisturbed
from spark_rl.environments.alfworld.games import Games
from spark_rl.environments.alfworld.memo import install
from spark_rl.environments.alfworld.translations import put_on_disk
from spark_rl.errors import SparkError

__all__ = ["Translator", "open_translator", "translate_ahead"]


@dataclass(frozen=True)
class Translator:
    """The work of a helper."""

    games: Games
    cache: int
    """Most megabytes of translations on disk."""


def translate_ahead(translator: Translator, task_ids: Sequence[str]) -> None:
    """Begin to translate games, before those of earlier calls that wait; returns at once."""
    _running.of(translator).add(task_ids)


class _Ahead:
    """A helper, and a thread that gives it one game after the other while there are any."""

    def __init__(self, translator: Translator) -> None:
        self.helper = Helper(open_translator, translator)
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._works = False

    def add(self, task_ids: Sequence[str]) -> None:
        """Put games before those that wait."""
        with self._lock:
            self._waiting = list(dict.fromkeys((*task_ids, *self._waiting)))
            if self._waiting and not self._works:
                self._works = True
                threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while (task_id := self._next()) is not None:
            try:
                self.helper.ask(task_id)
            except Lost:
                with self._lock:
                    self._waiting.clear()
            except (SparkError, RuntimeError):
                pass  # whoever plays the game meets the error

    def _next(self) -> str | None:
        with self._lock:
            if self._waiting:
                return self._waiting.pop(0)
            self._works = False
            return None


_running = ProcessLocal[Translator, _Ahead](_Ahead, lambda ahead: ahead.helper.close())
"""The helpers of this process."""


# -- in the helper --------------------------------------------------------------------------------------------------


def open_translator(translator: Translator) -> Callable[[str], None]:
    """The function that puts the translation of a game on disk."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)
    require()
    if not install():
        return lambda task_id: None  # nobody would read the translation

    def translate(task_id: str) -> None:
        game = translator.games.read(task_id)
        with undisturbed():
            put_on_disk(game["pddl_domain"], game["pddl_problem"], translator.cache)

    return translate
