"""Engines in processes of their own: an engine that hangs or dies costs a replay, and not the run.

Invariants
----------
* A call is answered as an engine of this process would answer it, errors included, even if workers were lost before.
* A worker that dies, or does not answer in time, is replaced, and the call is repeated. If the second worker is lost as
  well, the call fails and names game and action.
* No worker outlives this process, however it ends. The standard output of a worker is dropped.

Mechanism
---------
A call carries all that a new process needs: the place (task, actions, last observation) and the action to take. A worker
holds the states of its latest places, by task and actions, since these determine a state. It replays for any other place,
and after a restart. So nothing has to be released, and nothing is lost with a worker. A hash of its id assigns a task to a
worker, so that siblings share an engine.

Workers are started as commands, not by `multiprocessing`, which would import the user's main script again.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from spark_rl.environments.alfworld.engine import Engines, Place, require
from spark_rl.errors import EnvironmentFailure, SparkError

__all__ = ["KEPT_PLACES", "Workers", "serve"]

KEPT_PLACES = 2048
"""Most states in a worker, some 60 to 90 kB each; the least recently used goes first, and is replayed on demand."""
_START = 120.0
"""Seconds that a worker has to import the engine."""

_Call = tuple[str | Place, str]
"""A place and an action to take there, or the id of a task to start and an empty text."""
_Answer = Place | tuple[type[SparkError], str]
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
        return [worker.pid for worker in _workers(self)]

    def _of(self, task_id: str) -> _Worker:
        return _workers(self)[zlib.crc32(task_id.encode()) % self.count]


class _Lost(Exception):
    """A worker died, or did not answer in time."""


class _Worker:
    """This process's end of a worker: starts the worker on demand, and makes one call at a time."""

    def __init__(self, workers: Workers) -> None:
        self._engines, self._timeout = workers.engines, workers.timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Id of the worker's process; None while none runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def ask(self, call: _Call) -> Place:
        """The answer to a call, from a second process if the first one is lost.

        Raises:
            EnvironmentFailure: both processes were lost.
            SparkError: the error of the engine.
        """
        with self._lock:
            try:
                answer = self._try(call)
            except _Lost:
                try:
                    answer = self._try(call)
                except _Lost as lost:
                    game, action = (call[0], "reset") if isinstance(call[0], str) else (call[0].task_id, call[1])
                    raise EnvironmentFailure(
                        f'alfworld: the engine {lost} at action "{action}" of game "{game}", in a second process too; '
                        "leave the game out, or raise --env.timeout if the machine is busy"
                    ) from lost
        if isinstance(answer, Place):
            return answer
        kind, sentence = answer
        raise kind.__new__(kind, sentence)  # bypasses the constructor, whose arguments may differ

    def stop(self) -> None:
        """End the process; the next call starts another."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def _try(self, call: _Call) -> _Answer:
        try:
            connection = self._connection or self._start()
            connection.send(call)
            return _receive(connection, self._timeout)
        except (OSError, EOFError) as error:
            self.stop()
            raise _Lost("died") from error
        except _Lost:
            self.stop()
            raise

    def _start(self) -> Connection:
        self._connection, theirs = Pipe()
        code = f"from spark_rl.environments.alfworld.workers import serve; serve({theirs.fileno()}, {os.getpid()})"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._connection.send(self._engines)
        _receive(self._connection, _START)
        return self._connection


def _receive(connection: Connection, seconds: float) -> _Answer:
    if not connection.poll(seconds):
        raise _Lost(f"did not answer within {seconds:g} s")
    return connection.recv()


_running: dict[tuple[int, Workers], list[_Worker]] = {}
_guard = threading.Lock()


def _workers(workers: Workers) -> list[_Worker]:
    """The workers of this process; a forked child starts its own, since two processes cannot share a pipe."""
    with _guard:
        key = os.getpid(), workers
        if key not in _running:
            _running[key] = [_Worker(workers) for _ in range(workers.count)]
        return _running[key]


@atexit.register
def _stop_all() -> None:
    for (process, _), group in _running.items():
        for worker in group if process == os.getpid() else ():
            worker.stop()


# -- in the worker --------------------------------------------------------------------------------------------------


def serve(descriptor: int, parent: int) -> None:
    """The main function of a worker's process: answers calls until the other end of the pipe is closed.

    Args:
        descriptor: the worker's end of the pipe.
        parent: id of the process that started the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is meant for the parent, which may go on
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    places: _Places = OrderedDict()
    with Connection(descriptor) as connection:
        try:
            engines: Engines = connection.recv()
            require()
            connection.send(None)
            while True:
                connection.send(_answer(engines, places, connection.recv()))
        except (EOFError, OSError):
            return


def _answer(engines: Engines, places: _Places, call: _Call) -> _Answer:
    place, action = call
    try:
        if isinstance(place, str):
            after = engines.start(place)
        else:
            own = places.get((place.task_id, place.actions))
            place = own if own is not None and own.shown == place.shown else place  # they differ if the game was changed
            after = engines.step(place, action)
            _store(places, place)
    except SparkError as error:
        return type(error), str(error)
    except Exception as error:
        return EnvironmentFailure, f"alfworld: the engine raised {type(error).__name__}: {error}"
    _store(places, after)
    return after


def _store(places: _Places, place: Place) -> None:
    places[place.task_id, place.actions] = place
    places.move_to_end((place.task_id, place.actions))
    if len(places) > KEPT_PLACES:
        places.popitem(last=False)


def _die_with(parent: int) -> None:
    """End this process when its parent is gone, even while the planner is busy and no thread reads the pipe."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
