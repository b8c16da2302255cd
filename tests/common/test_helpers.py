"""Helpers answer as this process would, die when they must, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spark_rl.common.helpers import Helper, Lost, cores, portable
from spark_rl.environments.household import Household
from spark_rl.errors import PromptTooLong, UsageError

HERE = Path(__file__).parent


def open_calls(setup: str) -> Callable[[tuple[str, object]], object]:
    """A helper for these tests; `setup` goes before what it says."""
    if setup == "unusable":
        raise UsageError("no such setup")

    def call(request: tuple[str, object]) -> object:
        match request:
            case ("say", text):
                print("to nobody")
                return f"{setup} {text}"
            case ("pid", _):
                return os.getpid()
            case ("environment", name):
                return os.environ.get(str(name))
            case ("refuse", text):
                raise PromptTooLong(str(text))
            case ("fail", text):
                raise KeyError(text)
            case ("die", _):
                os._exit(1)
            case _:
                time.sleep(600)
        return None

    return call


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch) -> Generator[Helper]:
    monkeypatch.syspath_prepend(str(HERE))
    found = Helper(_named("open_calls"), "they say")
    yield found
    found.close()


def _named(name: str) -> Callable[..., Callable[[Any], object]]:
    """The function by the name that a helper imports it by, whatever pytest calls this module."""
    function = globals()[name]
    function.__module__ = Path(__file__).stem
    return function


def test_answers_and_errors_are_those_of_the_function(helper: Helper, capfd: pytest.CaptureFixture) -> None:
    assert helper.ask(("say", "yes")) == "they say yes"
    with pytest.raises(PromptTooLong, match=r"^too long$"):
        helper.ask(("refuse", "too long"))
    with pytest.raises(RuntimeError, match="KeyError: 'odd'"):
        helper.ask(("fail", "odd"))
    assert helper.ask(("say", "still")) == "they say still"
    assert helper.ask(("environment", "OMP_NUM_THREADS")) == "1"
    assert capfd.readouterr() == ("", "")


def test_a_setup_that_fails_is_an_error_of_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    helper = Helper(_named("open_calls"), "unusable")
    with pytest.raises(UsageError, match="no such setup"):
        helper.ask(("say", "yes"))
    helper.close()


def test_a_helper_that_dies_or_is_slow_is_lost_and_replaced(helper: Helper) -> None:
    first = helper.ask(("pid", None))
    with pytest.raises(Lost, match="died"):
        helper.ask(("die", None))
    second = helper.ask(("pid", None))
    assert second != first
    with pytest.raises(Lost, match=r"did not answer within 0\.2 s"):
        helper.ask(("sleep", None), 0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)
    assert helper.ask(("say", "again")) == "they say again"


def test_a_closed_helper_ends_in_the_middle_of_a_call_and_does_not_start_again(helper: Helper) -> None:
    pid, caught = helper.ask(("pid", None)), []

    def sleep() -> None:
        try:
            helper.ask(("sleep", None))
        except Lost as lost:
            caught.append(str(lost))

    thread = threading.Thread(target=sleep)
    thread.start()
    time.sleep(0.1)  # the call may have begun by now, or not: both must end
    helper.close()
    thread.join(60)
    assert caught
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Lost, match="was stopped"):
        helper.ask(("say", "yes"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_helper_outlives_its_parent(number: signal.Signals) -> None:
    script = f"""
        import os, signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background
        sys.path.insert(0, {str(HERE)!r})
        from test_helpers import Helper, open_calls
        helper = Helper(open_calls, "")
        print(helper.ask(("pid", None)), flush=True)
        helper.ask(("sleep", None))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(number)
        try:
            assert parent.wait(60) != 0
        finally:
            parent.kill()
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the helper is still there")


def test_only_what_another_process_can_import_is_portable() -> None:
    @dataclass(frozen=True)
    class Local:
        size: int

    assert portable(Household())
    assert not portable(Local(1))
    assert not portable(lambda: None)
    main = type("Mine", (), {})
    main.__module__ = "__main__"
    assert not portable(main())


def test_a_command_beside_others_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    for share, number in ((None, 4), ("1", 1), ("2", 2), ("64", 4), ("0", 4), ("many", 4)):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if share is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", share)
        assert cores() == number
