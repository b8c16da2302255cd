"""Java processes that hold worlds: they start on demand, answer one call at a time, and end with this process.

Invariants
----------
* A call is answered, or `Lost` reports that the process and all its worlds are gone; the next call starts another process.
* No Java process outlives this process, however it ends: a Java process ends when its standard input closes.

Mechanism
---------
The helper (`java/`) reads requests from its standard input and writes replies to its standard output, so that there is no
port, no second library and nothing to clean up. The helper runs in a session of its own, since a Ctrl-C is meant for this
process, which may go on. The heap is bounded, since by default Java collects garbage late and takes all memory of the
machine; the garbage collector is the serial one, which has no threads. With `-XX:hashCode=2` all objects have the same
identity hash. The engine orders objects by this hash, so that texts would otherwise differ from run to run (a quarter of all
replayed solutions differ somewhere) and no copy of a world could be exact.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import select
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from spark_rl.common.process_local import ProcessLocal
from spark_rl.errors import EnvironmentFailure, MissingExtra, UsageError

__all__ = ["CLASSES", "LEAST_JAVA", "Jvm", "Launch", "Lost", "archive", "engine_version", "find_java", "machines"]

LEAST_JAVA = 17
CLASSES = Path(__file__).parent / "java"
"""Folder of the helper's compiled classes, which also has their source."""
FLAGS = ("-XX:+UseSerialGC", "-XX:+IgnoreUnrecognizedVMOptions", "-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")

_START = 120.0
"""Seconds that a process has to load the engine."""
_DROPPED = 32
"""Fewest worlds that are released together."""


class Lost(Exception):
    """The process died, or was killed since it did not answer."""


def archive() -> Path:
    """The engine's archive of classes; the engine's Python package is not imported.

    Raises:
        MissingExtra: the engine is not installed.
    """
    try:
        jar = Path(str(importlib.metadata.distribution("scienceworld").locate_file("scienceworld/scienceworld.jar")))
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra("ScienceWorld", "scienceworld") from error
    if not jar.is_file():
        raise MissingExtra("ScienceWorld", "scienceworld")
    return jar


def engine_version() -> str:
    """Version of the installed engine."""
    archive()
    return importlib.metadata.version("scienceworld")


def find_java() -> str:
    """The program `java` of `$JAVA_HOME`, else the one on the path.

    Raises:
        UsageError: there is no such program.
    """
    home = os.environ.get("JAVA_HOME")
    program = (home and shutil.which(Path(home) / "bin" / "java")) or shutil.which("java")
    if not program:
        raise UsageError(
            f'ScienceWorld needs Java {LEAST_JAVA} or newer, and there is no program "java" on the path: install one '
            "(Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
        )
    return program


def _java_version(java: str) -> int:
    """The main version of Java; 0 where its output has none."""
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    match = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(match[1]) if match else 0


@dataclass(frozen=True)
class Launch:
    """Settings of processes. Equal values share processes."""

    heap: int
    """Most megabytes of worlds."""
    timeout: float
    """Seconds for a call before the process is killed."""


class Jvm:
    """One Java process. Callers hold `lock` during a call, or over several calls."""

    def __init__(self, launch: Launch) -> None:
        self.lock = threading.RLock()
        self.generation = 0
        """Number of the process; worlds of earlier processes are gone."""
        self.losses = 0
        """Number of processes that died, or were killed since they did not answer."""
        self.exact = False
        """Whether the process can copy worlds."""
        self.java = ""
        """Version of Java."""
        self._launch = launch
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._worlds = 0
        self._dropped: deque[tuple[int, str]] = deque()

    @property
    def pid(self) -> int | None:
        """Id of the process; None while no process runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def ask(self, *request: str, timeout: float | None = None) -> list[str]:
        """The reply to a request.

        Raises:
            Lost: the process died, or did not answer in time and was killed.
            EnvironmentFailure: the request cannot be carried out; the message is the engine's.
            UsageError: no process can be started.
        """
        if self._process is None:
            self._start()
        self._release()
        return self._call(request, self._launch.timeout if timeout is None else timeout)

    def name_world(self) -> str:
        """A new id for a world."""
        self._worlds += 1
        return str(self._worlds)

    def drop(self, generation: int, world: str) -> None:
        """Release a world, some time later. May be called from anywhere, also during garbage collection."""
        self._dropped.append((generation, world))

    def stop(self) -> None:
        """End the process; the next call starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout, self._errors):
                if pipe is not None:
                    pipe.close()
        self._process = self._errors = None

    def _release(self) -> None:
        if len(self._dropped) >= _DROPPED:
            dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
            worlds = [world for generation, world in dropped if generation == self.generation]
            if worlds:
                self._call(("drop", *worlds), self._launch.timeout)

    def _call(self, request: tuple[str, ...], timeout: float) -> list[str]:
        assert self._process is not None
        try:
            _write(self._process, request)
            status, *reply = _read_reply(self._process, time.monotonic() + timeout)
        except (OSError, EOFError, Lost) as error:
            reason = str(error) if isinstance(error, Lost) else f"died{self._last_words()}"
            self.losses += 1
            self.stop()
            raise Lost(reason) from error
        except BaseException:  # the call was interrupted: its reply must not be taken for the reply to the next call
            self.stop()
            raise
        if status != "ok":
            raise EnvironmentFailure(f"scienceworld: the engine says {reply[0]}")
        return reply

    def _start(self) -> None:
        jar, java = archive(), find_java()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        command = [
            java,
            f"-Xmx{self._launch.heap}m",
            *FLAGS,
            "-cp",
            os.pathsep.join([str(CLASSES), str(jar)]),
            "sparkrl.Host",
        ]
        self.generation += 1
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            cwd=jar.parent,  # the engine reads its table of types from the working directory
            start_new_session=True,
        )
        try:
            self.java, exact = self._call(("hello",), _START)
        except Lost as lost:
            version = _java_version(java)
            if version and version < LEAST_JAVA:
                raise UsageError(
                    f"ScienceWorld needs Java {LEAST_JAVA} or newer, {java} is version {version}: "
                    "put a newer one on the path or set JAVA_HOME"
                ) from lost
            raise UsageError(f"scienceworld: {java} {lost}; is --env.heap {self._launch.heap} right?") from lost
        self.exact = exact == "true"

    def _last_words(self) -> str:
        """The last line that the process wrote to its standard error, in brackets; empty where there is none."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""


def _write(process: subprocess.Popen[bytes], request: tuple[str, ...]) -> None:
    """Send a whole request."""
    texts = [text.encode("utf-8", errors="replace") for text in request]
    message = struct.pack(">i", len(texts)) + b"".join(struct.pack(">i", len(text)) + text for text in texts)
    assert process.stdin is not None
    view = memoryview(message)
    while view:
        view = view[process.stdin.write(view) or 0 :]


def _read_reply(process: subprocess.Popen[bytes], deadline: float) -> list[str]:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    held = bytearray()
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        while len(held) - at < size:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                raise Lost("did not answer in time")
            more = os.read(descriptor, 1 << 16)
            if not more:
                raise EOFError
            held.extend(more)
        at += size
        return bytes(held[at - size : at])

    def number() -> int:
        return struct.unpack(">i", take(4))[0]

    return [take(number()).decode() for _ in range(number())]


def _stop(group: list[Jvm]) -> None:
    for jvm in group:
        jvm.stop()


_running = ProcessLocal[Launch, list[Jvm]](lambda _: [], _stop)
"""The Java processes of this process."""
_guard = threading.Lock()


def machines(launch: Launch, count: int) -> list[Jvm]:
    """The Java processes of this process, at least `count`; a forked child process has its own."""
    group = _running.of(launch)
    with _guard:
        group.extend(Jvm(launch) for _ in range(count - len(group)))
    return group
