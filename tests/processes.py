"""Processes that a test has started, as /proc tells of them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path


def parents() -> dict[int, int]:
    """The parent of each process that has not ended."""
    found: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if fields[0] != "Z":
            found[int(stat.parent.name)] = int(fields[1])
    return found


def children(parent: int) -> list[int]:
    """Ids of the processes that another one has started."""
    return [process for process, above in parents().items() if above == parent]


def descendants(ancestor: int) -> dict[int, str]:
    """Command lines of all processes below one, by their ids."""
    family, found, more = parents(), dict[int, str](), {ancestor}
    while more:
        more = {process for process, parent in family.items() if parent in more}
        for process in more:
            try:
                found[process] = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
    return found


def until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for a condition while a process runs."""
    while not true():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def gone(processes: Collection[int]) -> bool:
    """Whether processes end, for which they have a minute."""
    for _ in range(1200):
        if not parents().keys() & set(processes):
            return True
        time.sleep(0.05)
    return False
