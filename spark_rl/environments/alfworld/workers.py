"""Engines in processes of their own: an engine that hangs or dies costs a replay, and not the run.

Invariants
----------
* A call is answered as an engine of this process would answer it, errors included, even if workers were lost before.
* A worker that dies, or does not answer in time, is replaced, and the call is repeated. If the second worker is lost as
  well, the call fails and names game and action.
* A worker is a `common.helpers.Helper`, so none outlives this process.

Mechanism
---------
A call carries all that a new process needs: the place (task, actions, last observation) and the action to take. A worker
holds the states of its latest places, by task and actions, since these determine a state. It replays for any other place,
and after a restart. So nothing has to be released, and nothing is lost with a worker. A hash of its id assigns a task to a
worker, so that siblings share an engine.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from spark_rl.common.helpers import Helper, Lost
from spark_rl.common.process_local import ProcessLocal
from spark_rl.environments.alfworld.engine import Engines, Place, require
from spark_rl.errors import EnvironmentFailure, SparkError

__all__ = ["KEPT_PLACES", "Workers", "open_engines"]

KEPT_PLACES = 2048
"""Most states in a worker, some 60 to 90 kB each; the least recently used goes first, and is replayed on demand."""

_Call = tuple[str | Place, str]
"""A place and an action to take there, or the id of a task to start and an empty text."""
_Places = OrderedDict[tuple[str, tuple[str, ...]], Place]
"""The places whose states a worker holds, by task and actions."""


@dataclass(frozen=True)
class Workers:
    """Processes with engines, which play a set of games. Equal values share processes."""

    engines: Engines
    """The engines of each worker."""
    count: int
    timeout: float
    """Seconds that a worker has for a call before it is killed."""

    def start(self, task_id: str) -> Place:
        """The place at which a game starts; see `Engines.start`."""
        return self._of(task_id).ask((task_id, ""))

    def step(self, place: Place, action: str) -> Place:
        """The place to which an action leads; see `Engines.step`."""
        return self._of(place.task_id).ask((place, action))

    def processes(self) -> list[int | None]:
        """Ids of the workers' processes; None for a worker without a process, which starts with its first call."""
        return [worker.pid for worker in _workers.of(self)]

    def _of(self, task_id: str) -> _Worker:
        return _workers.of(self)[zlib.crc32(task_id.encode()) % self.count]


class _Worker:
    """This process's end of a worker: its helper, and a second try."""

    def __init__(self, workers: Workers) -> None:
        self._helper, self._timeout = Helper(open_engines, workers.engines), workers.timeout

    @property
    def pid(self) -> int | None:
        """Id of the worker's process; None while none runs."""
        return self._helper.pid

    def ask(self, call: _Call) -> Place:
        """The answer to a call, from a second process if the first one is lost.

        Raises:
            EnvironmentFailure: both processes were lost.
            SparkError: the error of the engine.
        """
        try:
            return self._helper.insist(call, self._timeout)
        except Lost as lost:
            game, action = (call[0], "reset") if isinstance(call[0], str) else (call[0].task_id, call[1])
            raise EnvironmentFailure(
                f'alfworld: the engine {lost} at action "{action}" of game "{game}", in a second process too; '
                "leave the game out, or raise --env.timeout if the machine is busy"
            ) from lost

    def stop(self) -> None:
        """End the process; the next call starts another."""
        self._helper.stop()


def _stop(group: list[_Worker]) -> None:
    for worker in group:
        worker.stop()


_workers = ProcessLocal[Workers, "list[_Worker]"](lambda workers: [_Worker(workers) for _ in range(workers.count)], _stop)
"""The workers of this process."""


# -- in the worker --------------------------------------------------------------------------------------------------


def open_engines(engines: Engines) -> Callable[[_Call], Place]:
    """The function that carries out a worker's calls."""
    require()
    places: _Places = OrderedDict()
    return lambda call: _answer(engines, places, call)


def _answer(engines: Engines, places: _Places, call: _Call) -> Place:
    place, action = call
    try:
        if isinstance(place, str):
            after = engines.start(place)
        else:
            own = places.get((place.task_id, place.actions))
            place = own if own is not None and own.shown == place.shown else place  # they differ if the game was changed
            after = engines.step(place, action)
            _store(places, place)
    except SparkError:
        raise
    except Exception as error:
        raise EnvironmentFailure(f"alfworld: the engine raised {type(error).__name__}: {error}") from error
    _store(places, after)
    return after


def _store(places: _Places, place: Place) -> None:
    places[place.task_id, place.actions] = place
    places.move_to_end((place.task_id, place.actions))
    if len(places) > KEPT_PLACES:
        places.popitem(last=False)
