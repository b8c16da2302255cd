"""Progress of a long job, shown to a person.

Invariant: training never depends on the watcher. A `Watcher` receives reports and returns nothing.

Where the job says what it expects (`Watcher.expect`), the time left of the whole job is shown too. It is corrected all the
time by how long the phases really take.

On a terminal one live line shows phase, position, figures, memory and time left (`RichProgress`). Elsewhere each phase and
each iteration is one plain line, and a long phase says every few minutes how far it is, so that a log file stays readable
(`Quiet`). Both write to standard error, because standard output is for results.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from spark_rl.common.metrics import PROGRESS
from spark_rl.contracts import Watcher

__all__ = ["Quiet", "RichProgress", "duration", "figures", "resident_bytes", "watching"]

SHOWN = (*PROGRESS, "loss")
"""The figures on the line: those of an iteration, as in metrics.jsonl, and those that a cold start reports."""
SILENCE = 120.0
"""Seconds after which a plain log has a line again, if there is news."""


@contextlib.contextmanager
def watching(*, quiet: bool = False, stream: TextIO | None = None) -> Generator[Watcher]:
    """The watcher for a stream: a live line on a terminal, plain lines elsewhere, nothing when quiet.

    Args:
        quiet: write nothing.
        stream: where to write; standard error by default.
    """
    out = sys.stderr if stream is None else stream
    if quiet or not out.isatty():
        yield Quiet(None if quiet else out)
    else:
        with RichProgress(Console(file=out)) as watcher:
            yield watcher


class Quiet:
    """Plain lines without escape codes: phases, iterations, and the news every `SILENCE`; nothing if `stream` is None."""

    def __init__(self, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._name, self._total = "", None
        self._pace = _Pace(clock(), 0)
        self._whole = _Whole()
        self._spoke = clock()

    def phase(self, name: str, total: int | None = None, done: int = 0) -> None:
        """Write a line with the phase's name and size, and the time left of the whole job."""
        now = self._clock()
        self._name, self._total, self._pace = name, total, _Pace(now, done)
        self._whole.begin(name, now, done / total if total else 0.0)
        size = "" if total is None else f": {total}" + (f", {done} done" if done else "")
        left = self._whole.left(now, 0.0)
        self._say(f"{name}{size}" + (f"  ({left} left in all)" if left else ""))

    def advance(self, done: int, *, total: int | None = None, **figures: float) -> None:
        """Write a line with position, figures, memory and time left if the last line is old."""
        self._total = self._total if total is None else total
        if self._clock() - self._spoke >= SILENCE:
            self._say(self._line(f"{self._name} {done}", done, figures))

    def note(self, text: str) -> None:
        """Write the text as a line."""
        self._say(text)

    def iteration(self, row: Mapping[str, float]) -> None:
        """Write a line with position, figures, memory and time left."""
        done = int(row["iteration"])
        self._say(self._line(f"iteration {done}", done, row))

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Keep in mind, for the lines to come."""
        self._whole.expect(seconds)

    def _line(self, place: str, done: int, numbers: Mapping[str, float]) -> str:
        place += "" if self._total is None else f"/{self._total}"
        return "  ".join(filter(None, (place, figures(numbers), _memory(), self._left(done))))

    def _left(self, done: float) -> str:
        now, total = self._clock(), self._total
        return _sentence(self._pace.left(now, done, total), self._whole.left(now, self._pace.share(done, total)))

    def _say(self, text: str) -> None:
        self._spoke = self._clock()
        if self._stream is not None:
            print(text, file=self._stream, flush=True)


class RichProgress:
    """A live line at the foot of a terminal, with one finished line for each phase above it; a context manager."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            _Count(),
            _Left(self._time_left),
            # A narrow terminal cuts the figures and nothing else.
            TextColumn("{task.fields[figures]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            expand=True,
            console=console,
        )
        self._pace = _Pace(clock(), 0)
        self._whole = _Whole()
        self._current = None

    def __enter__(self) -> RichProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, name: str, total: int | None = None, done: int = 0) -> None:
        """Start a new live line; the previous line stays as finished."""
        self._finish()
        now = self._clock()
        self._pace = _Pace(now, done)
        self._whole.begin(name, now, done / total if total else 0.0)
        self._current = self._progress.add_task(name, total=total, completed=done, figures="")

    def advance(self, done: int, *, total: int | None = None, **numbers: float) -> None:
        """Move the bar."""
        if self._current is not None:
            self._progress.update(self._current, completed=done, figures=_status(numbers))
            if total is not None:
                self._progress.update(self._current, total=total)

    def note(self, text: str) -> None:
        """Write a line above the live line."""
        self._progress.console.print(Text(text, style="dim"))

    def iteration(self, row: Mapping[str, float]) -> None:
        """Move the bar and show the iteration's figures."""
        if self._current is not None:
            self._progress.update(self._current, completed=int(row["iteration"]), figures=_status(row))

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Keep in mind, for the live line."""
        self._whole.expect(seconds)

    def _finish(self) -> None:
        """End the current phase when the next one begins; a phase of unknown size then counts as complete."""
        if self._current is not None:
            task = self._progress.tasks[-1]
            if task.total is None:
                self._progress.update(self._current, total=max(task.completed, 1), completed=max(task.completed, 1))
            self._progress.stop_task(self._current)

    def _time_left(self, task: Task) -> str:
        if task.stop_time is not None:
            return ""
        now, done, total = self._clock(), task.completed, task.total
        return _sentence(self._pace.left(now, done, total), self._whole.left(now, self._pace.share(done, total)))


class _Count(MofNCompleteColumn):
    """The column for parts done, if the number of parts is known."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class _Left(ProgressColumn):
    """The column for the time left."""

    def __init__(self, left: Callable[[Task], str]) -> None:
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        return Text(self._left(task))


class _Pace:
    """The start time of a phase, and the parts done at the start."""

    def __init__(self, start: float, done: float) -> None:
        self.start, self.done = start, done

    def left(self, now: float, done: float, total: float | None) -> str:
        """Time left at the mean pace so far; empty while the pace is unknown."""
        if total is None or done <= self.done or done >= total:
            return ""
        return duration((now - self.start) / (done - self.done) * (total - done))

    def share(self, done: float, total: float | None) -> float:
        """Which share of the parts that were left at the start is done."""
        return 0.0 if not total or done <= self.done else (done - self.done) / (total - self.done)


class _Whole:
    """The time left of a job whose phases have expected times.

    Later phases are expected to take as much longer than expected as the earlier ones did, on the whole. The expectation
    itself counts as if a twentieth of the job had gone as expected, so that a short first phase does not decide all.
    """

    PRIOR = 0.05

    def __init__(self) -> None:
        self._coming: dict[str, float] = {}
        self._prior = self._took = self._due = 0.0
        self._start, self._expected = 0.0, 0.0
        """Start of the present phase, and its expected seconds (0: none are known)."""

    def expect(self, seconds: Mapping[str, float]) -> None:
        self._coming = dict(seconds)
        self._prior = self.PRIOR * sum(seconds.values())

    def begin(self, name: str, now: float, done: float) -> None:
        """A phase begins, of which a share was done earlier; expected phases before it are over."""
        if self._expected:
            self._took, self._due = self._took + now - self._start, self._due + self._expected
        self._start, self._expected = now, 0.0
        if name in self._coming:
            names = list(self._coming)
            self._expected = self._coming[name] * (1 - done)
            self._coming = {later: self._coming[later] for later in names[names.index(name) + 1 :]}

    def left(self, now: float, share: float) -> str:
        """Time left, where a share of the present phase is done; empty where nothing is expected."""
        if not self._prior or (share >= 1 and not self._coming):
            return ""
        spent = now - self._start if self._expected else 0.0
        counted = spent if share else 0.0  # before its first part is done, the phase says nothing about the pace
        pace = (self._prior + self._took + counted) / (self._prior + self._due + share * self._expected)
        here = spent * (1 - share) / share if share else max(0.0, self._expected * pace - spent)
        return duration(here + pace * sum(self._coming.values()))


def _sentence(phase: str, whole: str) -> str:
    """The time left of the phase, and of the whole job, where they are known."""
    parts = [f"{phase} left"] if phase else []
    if whole:
        parts.append(f"{whole} in all" if phase else f"{whole} left in all")
    return ", ".join(parts)


def figures(row: Mapping[str, float]) -> str:
    """Success, reward and tokens a second of an iteration, or other figures of a phase; missing figures are left out."""
    shown = [f"{name} {row[name]:.2f}" for name in SHOWN if name in row]
    seconds = row.get("seconds_generate") or row.get("seconds")
    if seconds and row.get("generated"):
        shown.append(f"{row['generated'] / seconds:,.0f} tokens/s")
    return "  ".join(shown)


def _status(row: Mapping[str, float]) -> str:
    return "  ".join(filter(None, (figures(row), _memory())))


def _memory() -> str:
    """Memory of this process in words."""
    return f"{resident_bytes() / 2**20:,.0f} MiB"


def resident_bytes() -> int:
    """Current memory of this process; the peak memory if the system does not report the current one."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def duration(seconds: float) -> str:
    """`45 s`, `3:05 min`, `2:10 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
