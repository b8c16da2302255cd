"""What a watcher says on a terminal, in a log file, and when told to be quiet."""

from __future__ import annotations

import io
import sys

from rich.console import Console

from spark_rl.common.progress import Quiet, RichProgress, duration, figures, resident_bytes, watching
from spark_rl.contracts import Watcher

ROW = {"iteration": 3.0, "success": 0.4375, "reward": 0.5, "generated": 3000.0, "seconds_generate": 1.5, "seconds": 2.0}


class Clock:
    """A clock that stands still unless moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def tell(watcher: Watcher, clock: Clock) -> None:
    watcher.phase("demonstrations", 30)
    watcher.advance(10)
    watcher.phase("cold start")
    watcher.advance(4, total=8, loss=1.25)
    watcher.note("a note with [red]brackets")
    watcher.phase("train", 5, 2)
    clock.now += 60.0
    watcher.iteration(ROW)


def test_plain_lines():
    stream, clock = io.StringIO(), Clock()
    tell(Quiet(stream, clock), clock)
    *lines, last = stream.getvalue().splitlines()
    assert lines == ["demonstrations: 30", "cold start", "a note with [red]brackets", "train: 5, 2 done"]
    # One of three iterations took a minute: two are left.
    assert last.startswith("iteration 3/5  success 0.44  reward 0.50  2,000 tokens/s")
    assert "MiB" in last
    assert last.endswith("2:00 min left")
    assert "\x1b" not in stream.getvalue()


def test_a_long_phase_says_how_far_it_is():
    stream, clock = io.StringIO(), Clock()
    watcher = Quiet(stream, clock)
    watcher.phase("cold start")
    for step in range(1, 9):
        clock.now += 60.0
        watcher.advance(step, total=10, loss=1 / step)
    first, second, third, fourth, last = stream.getvalue().splitlines()
    assert first == "cold start"
    assert second.startswith("cold start 2/10  loss 0.50  ")
    assert second.endswith("8:00 min left")
    assert third.startswith("cold start 4/10  loss 0.25  ")
    assert (fourth[:15], last[:15]) == ("cold start 6/10", "cold start 8/10")


def test_the_last_iteration_leaves_no_time():
    stream, clock = io.StringIO(), Clock()
    watcher = Quiet(stream, clock)
    watcher.phase("train", 3)
    clock.now += 5
    watcher.iteration(ROW)
    assert "left" not in stream.getvalue()


def test_the_live_line():
    stream, clock = Terminal(), Clock()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with RichProgress(console, clock) as watcher:
        tell(watcher, clock)
    text = stream.getvalue()
    last = text.splitlines()[-2]
    for part in ("train", "3/5", "success 0.44", "reward 0.50", "2,000 tokens/s", "MiB", "2:00 min left"):
        assert part in last
    assert "a note with [red]brackets" in text
    assert "loss 1.25" in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_the_live_line_fits_a_narrow_terminal():
    stream, clock = Terminal(), Clock()
    with RichProgress(Console(file=stream, force_terminal=True, width=60, color_system=None), clock) as watcher:
        tell(watcher, clock)
    last = stream.getvalue().splitlines()[-2]
    assert "2:00 min left" in last
    assert len(last.rpartition("\x1b[2K")[2]) <= 60


def test_who_watches():
    with watching(stream=Terminal()) as live, watching(stream=io.StringIO()) as plain:
        assert isinstance(live, RichProgress)
        assert isinstance(plain, Quiet)
    terminal = Terminal()
    with watching(quiet=True, stream=terminal) as silent:
        tell(silent, Clock())
    assert terminal.getvalue() == ""


def test_standard_error_by_default(capsys):
    with watching() as watcher:
        watcher.phase("train", 3)
    assert capsys.readouterr() == ("", "train: 3\n")


def test_figures_are_those_that_are_there():
    assert figures({}) == ""
    assert figures({"loss": 0.5}) == "loss 0.50"
    assert figures({"generated": 10.0, "seconds": 4.0}) == "2 tokens/s"


def test_durations():
    assert [duration(s) for s in (0.2, 59, 61, 3599, 3600, 8000)] == [
        "0 s",
        "59 s",
        "1:01 min",
        "59:59 min",
        "1:00 h",
        "2:13 h",
    ]


def test_memory_is_that_of_this_process():
    before = resident_bytes()
    held = bytearray(64 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    assert resident_bytes() - before > 50 * 2**20 or sys.platform != "linux"
    assert 2**20 < before < 2**40


def test_the_time_left_in_all_follows_how_long_phases_really_take():
    stream, clock = io.StringIO(), Clock()
    watcher = Quiet(stream, clock)
    watcher.expect({"cold start": 400.0, "train": 500.0, "evaluate": 100.0})
    watcher.phase("cold start")
    clock.now += 800.0  # twice as long as expected
    watcher.phase("train", 10)
    clock.now += 100.0
    watcher.iteration(ROW | {"iteration": 1.0})
    watcher.phase("evaluate", 20)
    first, second, iteration, last = stream.getvalue().splitlines()
    assert first == "cold start  (16:40 min left in all)"
    # The expectation counts as 50 of 50 seconds, the cold start as 800 of 400: everything takes 850/450 as long.
    assert second == "train: 10  (18:53 min left in all)"
    # One tenth took 100 s, so 900 are left; (50 + 800 + 100) / (50 + 400 + 50) = 1.9 holds for the 100 s that follow.
    assert iteration.endswith("15:00 min left, 18:10 min in all")
    # (50 + 900) / (50 + 900) = 1
    assert last == "evaluate: 20  (1:40 min left in all)"


def test_what_was_done_before_is_not_expected_again():
    stream, clock = io.StringIO(), Clock()
    watcher = Quiet(stream, clock)
    watcher.expect({"cold start": 400.0, "train": 500.0})
    watcher.phase("train", 10, 8)
    assert stream.getvalue() == "train: 10, 8 done  (1:40 min left in all)\n"


def test_the_live_line_tells_the_time_in_all():
    stream, clock = Terminal(), Clock()
    console = Console(file=stream, force_terminal=True, width=140, color_system=None)
    with RichProgress(console, clock) as watcher:
        watcher.expect({"cold start": 10.0, "train": 180.0, "evaluate": 3600.0})
        tell(watcher, clock)
    # (189.5 + 60) / (189.5 + 10 + 36) of an hour, and the two minutes of this phase.
    assert "2:00 min left, 1:05 h in all" in stream.getvalue()
