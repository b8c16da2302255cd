"""Helpers: processes of this package that carry out calls for this process, one call at a time.

Invariants
----------
* A call is answered as a function of this process would answer it, an error of this package included. Or `Lost` says that
  the helper died or was too slow; then the helper is gone, and the next call starts another.
* No helper outlives this process, however it ends. A Ctrl-C does not reach a helper. Its standard output is dropped.
* A helper uses one thread for numerical work: helpers side by side share the cores.

Helpers are started as commands, not by `multiprocessing`, which would import the user's main script again. So what a call
takes and returns must be importable by name, which things of a main script are not.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from spark_rl.common.loading import load_object
from spark_rl.errors import SparkError

__all__ = ["Helper", "Lost", "cores", "portable", "serve"]

_START = 120.0
"""Seconds that a helper has to import what it needs."""


class Lost(Exception):
    """The helper died, or did not answer in time; the message says which."""


@dataclass(frozen=True)
class _Raised:
    """An error in a helper."""

    kind: type[Exception]
    sentence: str


class Helper:
    """This process's end of a helper. Threads take turns."""

    def __init__(self, make: Callable[[Any], Callable[[Any], Any]], setup: object) -> None:
        """A helper that starts with its first call.

        Args:
            make: called once in the helper, with `setup`; returns the function that carries out the calls.
            setup: whatever `make` needs.
        """
        self._make, self._setup = f"{make.__module__}:{make.__qualname__}", setup
        self._lock, self._closed = threading.Lock(), False
        self._guard = threading.Lock()
        """Held while the process is started or ended, which another thread may do in the middle of a call."""
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Id of the process; None while none runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def ask(self, call: object, timeout: float | None = None) -> Any:
        """The answer to a call.

        Args:
            call: the argument of the function in the helper.
            timeout: seconds for the answer; None: as long as it takes.

        Raises:
            Lost: the helper died, or did not answer in time and was killed.
            SparkError: the function raised it.
            RuntimeError: the function raised an error that is not of this package; the message is its traceback.
        """
        with self._lock:
            try:
                connection = self._connection or self._start()
                connection.send(call)
                answer = _receive(connection, timeout)
            except (OSError, EOFError) as error:
                self.stop()
                raise Lost("died") from error
            except BaseException:  # the answer of an interrupted call must not be taken for the next call's
                self.stop()
                raise
        return _result(answer)

    def insist(self, call: object, timeout: float | None = None) -> Any:
        """The answer to a call, from a second process if the first one is lost; see `ask`.

        Raises:
            Lost: both processes were lost.
        """
        try:
            return self.ask(call, timeout)
        except Lost:
            return self.ask(call, timeout)

    def stop(self) -> None:
        """End the process; the next call starts another."""
        with self._guard:
            connection, process = self._connection, self._process
            self._process = self._connection = None
            if process is not None:
                process.kill()
                process.wait()
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """End the process for good, also in the middle of another thread's call; all calls raise `Lost`."""
        with self._guard:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _start(self) -> Connection:
        with self._guard:
            if self._closed:
                raise Lost("was stopped")
            connection = self._launch()
        connection.send((self._make, self._setup))
        _result(_receive(connection, _START))
        return connection

    def _launch(self) -> Connection:
        self._connection, theirs = Pipe()
        code = f"from spark_rl.common.helpers import serve; serve({theirs.fileno()}, {os.getpid()})"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            )
        return self._connection


def portable(value: object) -> bool:
    """Whether a value can be sent to a helper: all of its types can be imported by name in another process."""
    try:
        return b"__main__" not in pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False


def cores() -> int:
    """Number of processes that may compute at the same time: the usable cores, or fewer if `OMP_NUM_THREADS` says so.

    A command that runs beside others gets this variable with its share (`spark-rl compare` gives 1), so that processes do
    not multiply.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable, int(share)) if share.isdecimal() and int(share) else usable


def _receive(connection: Connection, seconds: float | None) -> Any:
    if not connection.poll(seconds):
        raise Lost(f"did not answer within {seconds:g} s")
    return connection.recv()


def _result(answer: Any) -> Any:
    if isinstance(answer, _Raised):
        raise answer.kind.__new__(answer.kind, answer.sentence)  # bypasses the constructor, whose arguments may differ
    return answer


# -- in the helper --------------------------------------------------------------------------------------------------


def serve(descriptor: int, parent: int) -> None:
    """The main function of a helper: carries out calls until the other end of the pipe is closed.

    Args:
        descriptor: the helper's end of the pipe.
        parent: id of the process that started the helper.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is meant for the parent, which may go on
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    with Connection(descriptor) as connection:
        try:
            make, setup = connection.recv()
            function = _carried_out(lambda: load_object(make, "helper", kind="function")(setup))
            if isinstance(function, _Raised):
                connection.send(function)
                return
            connection.send(None)
            while True:
                connection.send(_carried_out(partial(function, connection.recv())))
        except (EOFError, OSError):
            return


def _carried_out(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except SparkError as error:
        return _Raised(type(error), str(error))
    except Exception:
        return _Raised(RuntimeError, traceback.format_exc())


def _die_with(parent: int) -> None:
    """End this process when its parent is gone, even while a call is carried out and no thread reads the pipe."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
