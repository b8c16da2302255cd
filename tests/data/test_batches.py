"""Demonstrations played by helpers are those of one process, to the byte, and no helper stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from spark_rl.common import helpers
from spark_rl.data import batches
from spark_rl.data.demonstrations import collect
from spark_rl.data.format import Demonstration, save
from spark_rl.environments.household import Household
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.types import Observation, Task

HERE = Path(__file__).parent
PROMPT = Prompt(Transcript(), instructions="none")
WORLD = Household(train_tasks=40)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers start after the first batch."""
    monkeypatch.setattr(batches, "ENOUGH", 0.0)
    monkeypatch.setattr(batches, "WORTH", 0.0)
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[helpers.Helper]:
    """The helpers that were launched, one entry a process."""
    launched: list[helpers.Helper] = []
    launch = helpers.Helper._launch
    monkeypatch.setattr(helpers.Helper, "_launch", lambda self: launched.append(self) or launch(self))
    return launched


def shown(count: int, processes: int, world: Household = WORLD, **settings: Any) -> list[Demonstration]:
    return asyncio.run(collect(world, count, level="L2", horizon=30, prompt=PROMPT, processes=processes, **settings))


@dataclass(frozen=True)
class Fragile(Household):
    """The household, where starting a task of one house fails, ends the process, or takes for ever."""

    failure: str = ""
    marker: str = ""
    """File that is made when the failure comes, so that it comes once; empty: it comes every time."""

    def make(self):
        environment = super().make()
        reset = environment.reset

        def start(task: Task) -> Observation:
            if os.environ.get("PARENT") != str(os.getpid()) and not (self.marker and Path(self.marker).exists()):
                if self.marker:
                    Path(self.marker).touch()
                if self.failure == "die":
                    os._exit(1)
                if self.failure == "sleep":
                    time.sleep(600)
            if self.failure == "raise":
                raise EnvironmentFailure("the house is on fire")
            return reset(task)

        environment.reset = start
        return environment


# The name by which a helper imports it, whatever pytest calls this module.
Fragile.__module__ = Path(__file__).stem
sys.modules[Fragile.__module__] = sys.modules[__name__]


def test_any_number_of_helpers_gives_the_same_demonstrations_in_the_same_order(
    started: list[helpers.Helper], tmp_path: Path
) -> None:
    files = []
    for processes in (1, 2, 3):
        advances: list[int] = []
        found = shown(70, processes, slips=0.3, tags="dense", advance=advances.append)
        assert len(found) == 70
        assert advances == sorted(advances)
        assert advances[-1] == 70
        assert len(advances) > 5
        files.append(tmp_path / f"{processes}.jsonl")
        save(found, files[-1], PROMPT)
    assert len({id(helper) for helper in started}) == 2 + 3
    assert all(helper.pid is None for helper in started)
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


def test_few_demonstrations_are_played_here(started: list[helpers.Helper], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WORTH", 1e9)
    assert len(shown(20, 2)) == 20
    assert not started


def test_a_world_of_another_process_and_a_world_nobody_can_import_are_played_here(started: list[helpers.Helper]) -> None:
    @dataclass(frozen=True)
    class Mine(Household):
        """A world of a notebook."""

    @dataclass(frozen=True)
    class Away(Fragile):
        def make(self):
            environment = super().make()
            vars(environment)["out_of_process"] = True
            return environment

    for world in (Mine(train_tasks=40), Away(train_tasks=40)):
        assert [one.tree.nodes for one in shown(20, 2, world)] == [one.tree.nodes for one in shown(20, 2)[:20]]
    assert len(started) == 4  # the two helpers of `WORLD`, twice


def test_too_few_wins_are_the_same_sentence() -> None:
    said = []
    for processes in (1, 2):
        with pytest.raises(UsageError, match="fewer than the 900 demonstrations") as error:
            shown(900, processes, replace(WORLD, train_tasks=12))
        said.append(str(error.value))
    assert said[0] == said[1]


def test_an_environment_that_fails_is_the_same_sentence() -> None:
    said = []
    for processes in (1, 2):
        with pytest.raises(EnvironmentFailure, match="the house is on fire") as error:
            shown(30, processes, Fragile(train_tasks=40, failure="raise"))
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_helper_that_dies_once_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARENT", str(os.getpid()))
    fragile = Fragile(train_tasks=40, failure="die", marker=str(tmp_path / "died"))
    assert [one.tree.nodes for one in shown(40, 2, fragile)] == [one.tree.nodes for one in shown(40, 1)]
    assert (tmp_path / "died").exists()


def test_helpers_that_die_again_and_again_are_told(monkeypatch: pytest.MonkeyPatch, started: list[helpers.Helper]) -> None:
    monkeypatch.setenv("PARENT", str(os.getpid()))
    with pytest.raises(EnvironmentFailure, match=r"the process that plays demonstrations died .*--processes 1 plays them"):
        shown(40, 2, Fragile(train_tasks=40, failure="die"))
    assert all(helper.pid is None for helper in started)


def test_an_interruption_leaves_no_helper(tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background
        sys.path.insert(0, {str(HERE)!r})
        os.environ["PARENT"] = str(os.getpid())
        import test_batches as tests
        from spark_rl.common import helpers
        from spark_rl.common.running import run
        tests.batches.ENOUGH = tests.batches.WORTH = 0.0
        launch = helpers.Helper._launch
        def told(helper):
            connection = launch(helper)
            print(helper.pid, flush=True)
            return connection
        helpers.Helper._launch = told
        world = tests.Fragile(train_tasks=40, failure="sleep")
        run(tests.collect(world, 40, level="L2", horizon=30, prompt=tests.PROMPT, processes=2))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(signal.SIGINT)
        try:
            _, said = parent.communicate(timeout=60)
        finally:
            parent.kill()
    assert said.strip().endswith("KeyboardInterrupt")
    assert "never retrieved" not in said
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
