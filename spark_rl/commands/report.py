"""`spark-rl report` and `spark-rl export`: write runs into one HTML file, and their metrics into a CSV table."""

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
    """File to write."""
    max_mb: float = 25.0
    """Maximum size in megabytes; if not all forests fit, the file holds those of evenly spaced iterations."""

    def __post_init__(self) -> None:
        if self.max_mb <= 0:
            raise UsageError(f"max_mb is {self.max_mb}: it must be above 0")


@dataclass(frozen=True)
class _Export:
    """Write the metrics of runs as one CSV table: one row per iteration, one column per metric, and the run's name first."""

    out: Path = Path("metrics.csv")
    """File to write."""


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
    """The runs that the first arguments name, their names, and the call without these arguments."""
    paths, call = call.positionals("a run directory, or several")
    directories, foreign = find_runs(paths), cache(call.trusts)  # one question per place, even if several runs use it
    return [read_run(directory, foreign=foreign) for directory in directories], names(directories), call
