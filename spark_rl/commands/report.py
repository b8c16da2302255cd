"""`spark-rl report` and `spark-rl export`: runs as one HTML file, and their numbers as a table."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spark_rl.commands.base import Call
from spark_rl.common.files import write_bytes
from spark_rl.errors import UsageError
from spark_rl.report.reading import Reading, find_runs, names, read_run

__all__ = ["export", "report"]


@dataclass(frozen=True)
class _Report:
    """Write runs into one HTML file that opens anywhere, without a network."""

    out: Path = Path("report.html")
    """The file."""
    max_mb: float = 25.0
    """Its size at most, in megabytes; where not all forests fit, an even selection of iterations does."""

    def __post_init__(self) -> None:
        if self.max_mb <= 0:
            raise UsageError(f"max_mb is {self.max_mb}: it must be above 0")


@dataclass(frozen=True)
class _Export:
    """Write the metrics of runs as one CSV table: a row an iteration, a column a metric, and the run's name before them."""

    out: Path = Path("metrics.csv")
    """The file."""


def report(call: Call) -> int:
    """Read run directories and write the page."""
    from spark_rl.report.html import report as written

    readings, called, call = _readings(call)
    options = call.options(_Report())
    with call.watching() as watcher:
        watcher.phase("forests", sum(len(reading.forests) for reading in readings))
        page = written(readings, called, int(options.max_mb * 1e6), watcher.advance).encode()
    write_bytes(options.out, page)
    for name, reading in zip(called, readings, strict=True):
        for note in reading.notes:
            print(f"{name}: {note}")
    runs = f"{len(readings)} run{'s' * (len(readings) > 1)}"
    print(f"{options.out}: {runs}, {len(page) / 1e6:.1f} MB; open it in a browser")
    return 0


def export(call: Call) -> int:
    """Read run directories and write the table."""
    readings, called, call = _readings(call)
    options = call.options(_Export())
    columns = dict.fromkeys(name for reading in readings for row in reading.rows for name in row)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["run", *columns], restval="", lineterminator="\n")
    writer.writeheader()
    for name, reading in zip(called, readings, strict=True):
        writer.writerows({"run": name, **row} for row in reading.rows)
    write_bytes(options.out, text.getvalue().encode())
    print(f"{options.out}: {sum(len(reading.rows) for reading in readings)} rows, {len(columns)} metrics")
    return 0


def _readings(call: Call) -> tuple[list[Reading], list[str], Call]:
    """The runs that are named first, read; and the call without them."""
    paths, call = call.positionals("a run directory, or several")
    directories, foreign = find_runs(paths), cache(call.trusts)  # asked once, however many runs use it
    return [read_run(directory, foreign=foreign) for directory in directories], names(directories), call
