"""The runs of the server: run directories that may still grow, read again only where they changed.

Invariant: an answer depends only on the files at the time of the request, not on the processes that write them. A file that
has disappeared becomes a sentence in the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from spark_rl.errors import UsageError
from spark_rl.report.html import packed
from spark_rl.report.payload import ForestEntry, Payload, forest_entry, forest_payload, missing_entry, run_payload
from spark_rl.report.reading import Reading, find_runs, names, read_run
from spark_rl.runs.forests import forest_path

__all__ = ["Shelf"]

Stamp = tuple[tuple[str, int, int], ...]
"""Name, time of change and size of each file of a run that the page shows."""

PACKED = 64
"""Number of compressed forests in memory, as pages of the same run request the same forests."""


class Shelf:
    """The runs of a server, by the keys with which pages request them."""

    def __init__(self, places: Sequence[Path], foreign: Callable[[str], bool] = lambda _: False) -> None:
        """Look for runs.

        Args:
            places: run directories, and folders with runs or for future runs.
            foreign: called with the name of a class from outside this package before its import; False refuses the class.

        Raises:
            UsageError: a place does not exist, or holds no run.
        """
        self._places = places
        self._foreign = foreign
        self._runs: dict[str, Path] = {}
        self._entries: dict[tuple[Path, int, int], ForestEntry] = {}
        self._packed: OrderedDict[tuple[Path, int, int, Stamp], bytes] = OrderedDict()
        self._look()

    def look(self) -> None:
        """Add runs that have appeared. The key of a run never changes, even if its folder disappears."""
        with suppress(UsageError):
            self._look()

    def _look(self) -> None:
        present = set(self._runs.values())
        for directory in find_runs(self._places):
            if directory not in present:
                self._runs[str(len(self._runs))] = directory

    @property
    def keys(self) -> list[str]:
        """The keys of all runs, oldest first."""
        return list(self._runs)

    def stamp(self, key: str) -> Stamp:
        """A value that changes with every change of the run that the page shows."""
        directory = self._runs[key]
        files = [directory / name for name in ("recipe.json", "metrics.jsonl", "eval.json")]
        return tuple(_stamp(file) for file in [*files, *sorted((directory / "forests").glob("*.gz"))])

    def run(self, key: str) -> Payload:
        """A run without its steps; see `run_payload`.

        Raises:
            KeyError: there is no run with this key.
        """
        reading = self._read(key)
        entries = [self._entry(reading, iteration) for iteration in reading.forests]
        name = dict(zip(self._runs, names(list(self._runs.values())), strict=True))[key]
        return run_payload(reading, key, name, entries)

    def forest(self, key: str, iteration: int) -> bytes | str:
        """A forest as gzipped JSON (see `forest_payload`), or the sentence with the reason why there is none.

        Raises:
            KeyError: there is no run with this key.
        """
        directory = self._runs[key]
        file = forest_path(directory / "forests", iteration)
        mark = (*_mark(file), (_stamp(directory / "recipe.json"),))
        if (content := self._packed.get(mark)) is not None:
            self._packed.move_to_end(mark)
            return content
        reading = self._read(key)
        forest = reading.open_forest(iteration)
        if isinstance(forest, str):
            return forest
        self._packed[mark] = packed(forest_payload(forest, reading.recipe))
        if len(self._packed) > PACKED:
            self._packed.popitem(last=False)
        return self._packed[mark]

    def _read(self, key: str) -> Reading:
        return read_run(self._runs[key], foreign=self._foreign)

    def _entry(self, reading: Reading, iteration: int) -> ForestEntry:
        mark = _mark(forest_path(reading.directory / "forests", iteration))
        if mark not in self._entries:
            forest = reading.open_forest(iteration)
            if isinstance(forest, str):
                return missing_entry(iteration, forest)
            self._entries[mark] = forest_entry(forest)
        return self._entries[mark]


def _mark(file: Path) -> tuple[Path, int, int]:
    return file, *_stamp(file)[1:]


def _stamp(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:
        return file.name, 0, 0
    return file.name, status.st_mtime_ns, status.st_size
