"""Run directories that are being written, read again only where they changed.

Invariant: the shelf knows nothing of the processes that write. What it answers is what the files said when it was asked;
a file that has gone since is a sentence in the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from spark_rl.errors import UsageError
from spark_rl.report.html import packed
from spark_rl.report.payload import forest_entry, forest_payload, missing_entry, run_payload
from spark_rl.report.reading import Reading, find_runs, names, read_run
from spark_rl.runs.forests import forest_path

__all__ = ["Shelf"]

Json = dict[str, Any]
Stamp = tuple[tuple[str, int, int], ...]
"""Name, time of change and size of each file that a page shows something of."""

PACKED = 64
"""Forests kept packed, as pages that watch the same run ask for the same ones."""


class Shelf:
    """The runs that a server shows, by the key that pages ask for them with."""

    def __init__(self, places: Sequence[Path], foreign: Callable[[str], bool] = lambda _: False) -> None:
        """Look for runs.

        Args:
            places: run directories, and folders in which runs lie or will lie.
            foreign: asked before a recipe imports a class from outside this package.

        Raises:
            UsageError: a place is not there, or holds no run.
        """
        self._places = places
        self._foreign = foreign
        self._runs: dict[str, Path] = {}
        self._entries: dict[tuple[Path, int, int], Json] = {}
        self._packed: OrderedDict[tuple[Path, int, int, Stamp], bytes] = OrderedDict()
        self._look()

    def look(self) -> None:
        """Take in runs that have appeared; a key once given stays that run's, even when its folder has gone."""
        with suppress(UsageError):
            self._look()

    def _look(self) -> None:
        known = set(self._runs.values())
        for directory in find_runs(self._places):
            if directory not in known:
                self._runs[str(len(self._runs))] = directory

    @property
    def keys(self) -> list[str]:
        """Of all runs, in the order in which they were found."""
        return list(self._runs)

    def stamp(self, key: str) -> Stamp:
        """Changes when anything that a page shows of the run does."""
        directory = self._runs[key]
        files = [directory / name for name in ("recipe.json", "metrics.jsonl", "eval.json")]
        return tuple(_stamp(file) for file in [*files, *sorted((directory / "forests").glob("*.gz"))])

    def run(self, key: str) -> Json:
        """A run without its steps; see `run_payload`.

        Raises:
            KeyError: there is none of that key.
        """
        reading = self._read(key)
        entries = [self._entry(reading, iteration) for iteration in reading.forests]
        name = dict(zip(self._runs, names(list(self._runs.values())), strict=True))[key]
        return run_payload(reading, key, name, entries)

    def forest(self, key: str, iteration: int) -> bytes | str:
        """A forest, as gzipped JSON (see `forest_payload`), or why there is none.

        Raises:
            KeyError: there is no run of that key.
        """
        directory = self._runs[key]
        file = forest_path(directory / "forests", iteration)
        mark = (*_mark(file), (_stamp(directory / "recipe.json"),))
        if (known := self._packed.get(mark)) is not None:
            self._packed.move_to_end(mark)
            return known
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

    def _entry(self, reading: Reading, iteration: int) -> Json:
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
        found = file.stat()
    except OSError:
        return file.name, 0, 0
    return file.name, found.st_mtime_ns, found.st_size
