"""Commands of this package in separate processes, which can all be stopped at once.

Invariants
----------
* Each process has one thread, so that processes side by side do not compete for cores.
* After `stop` no process runs and none starts: one lock covers the check for `stop`, the start of a process and its entry
  in the list.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from spark_rl.errors import SparkError

__all__ = ["Runner"]


@dataclass
class Runner:
    """Starts processes and holds the running ones."""

    _running: set[subprocess.Popen[bytes]] = field(default_factory=set[subprocess.Popen[bytes]])
    _stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, log: Path, *words: str) -> None:
        """Run `spark-rl WORDS` to its end.

        Args:
            log: the file to which the output is added.
            words: the words of the command line.

        Raises:
            SparkError: the command failed or was stopped.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "spark_rl", *words, "--yes"]
        with log.open("ab") as file:
            with self._lock:
                if self._stopped:
                    raise SparkError("stopped")
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"}
                )
                self._running.add(process)
            try:
                code = process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)
        if code:
            last = next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "")
            raise SparkError(f"`spark-rl {' '.join(words[:3])}` ended with code {code} ({last.strip()}); see {log}")

    def stop(self) -> None:
        """End all running processes; the same commands continue their work."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()
