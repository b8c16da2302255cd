"""Engines in processes of their own: what hangs or dies there costs a replay, never the run.

Invariants
----------
* A call is answered as the engine of this process would answer it, errors included, whatever became of workers before.
* A worker that dies, or does not answer in time, is replaced and asked again; if that fails too, the call fails and says so.
* No worker outlives this process, however it ends; what a worker prints to its standard output is dropped.

Mechanism
---------
A call carries all that a fresh process needs: the place (task, actions, what was shown there) and the action to take. A
worker keeps the states of the places it met last, by task and actions, since these determine a state; for any other
place, or after a restart, it replays. So nothing has to be released, and nothing is lost with a worker. Tasks stick to
workers by a hash of their id, so that siblings share an engine.

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
"""States a worker keeps, some 60 to 90 kB each; the one met longest ago makes room, and is replayed when asked for."""
_START = 120.0
"""Seconds a worker has to import the engine."""

_Call = tuple[str | Place, str]
"""A place and an action to take there, or a task to start and nothing."""
_Answer = Place | tuple[type[SparkError], str]
_Kept = OrderedDict[tuple[str, tuple[str, ...]], Place]
"""The places whose states a worker keeps, by task and actions."""


@dataclass(frozen=True)
class Workers:
    """Who plays a set of games: processes with engines. Equal values share processes."""

    engines: Engines
    """What each worker has."""
    count: int
    timeout: float
    """Seconds a worker has for a call, before it is killed."""

    def start(self, task_id: str) -> Place:
        """Where a game starts; see `Engines.start`."""
        return self._of(task_id).ask((task_id, ""))

    def step(self, place: Place, action: str) -> Place:
        """Where an action leads; see `Engines.step`."""
        return self._of(place.task_id).ask((place, action))

    def processes(self) -> list[int | None]:
        """Ids of the workers' processes, None where none is running (they start with their first call)."""
        return [worker.pid for worker in _workers(self)]

    def _of(self, task_id: str) -> _Worker:
        return _workers(self)[zlib.crc32(task_id.encode()) % self.count]


class _Lost(Exception):
    """A worker is gone, or as good as."""


class _Worker:
    """The near end of a worker: starts it when it is needed, one call at a time."""

    def __init__(self, workers: Workers) -> None:
        self._engines, self._timeout = workers.engines, workers.timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Id of its process."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def ask(self, call: _Call) -> Place:
        """The answer to a call, from a second process if the first one is lost.

        Raises:
            EnvironmentFailure: both were lost.
            SparkError: what the engine raised.
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
                        f'alfworld: the engine {lost} at action "{action}" of game "{game}", a fresh one too; '
                        "leave the game out, or raise --env.timeout if the machine is busy"
                    ) from lost
        if isinstance(answer, Place):
            return answer
        kind, sentence = answer
        raise kind.__new__(kind, sentence)  # without its constructor, which may want other things than the sentence

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
    """This process's workers; a forked child starts its own, as two cannot talk over one pipe."""
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
    """Answer calls until the other end is closed: what a worker's process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the parent, which may go on
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    kept: _Kept = OrderedDict()
    with Connection(descriptor) as connection:
        try:
            engines: Engines = connection.recv()
            require()
            connection.send(None)
            while True:
                connection.send(_answer(engines, kept, connection.recv()))
        except (EOFError, OSError):
            return


def _answer(engines: Engines, kept: _Kept, call: _Call) -> _Answer:
    place, action = call
    try:
        if isinstance(place, str):
            found = engines.start(place)
        else:
            known = kept.get((place.task_id, place.actions))
            place = known if known is not None and known.shown == place.shown else place  # else the game was changed
            found = engines.step(place, action)
            _keep(kept, place)
    except SparkError as error:
        return type(error), str(error)
    except Exception as error:
        return EnvironmentFailure, f"alfworld: the engine raised {type(error).__name__}: {error}"
    _keep(kept, found)
    return found


def _keep(kept: _Kept, place: Place) -> None:
    kept[place.task_id, place.actions] = place
    kept.move_to_end((place.task_id, place.actions))
    if len(kept) > KEPT_PLACES:
        kept.popitem(last=False)


def _die_with(parent: int) -> None:
    """End this process when its parent is gone, even while the planner is busy and nobody reads the pipe."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
