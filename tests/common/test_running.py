"""Ctrl-C in the one event loop of a command."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from spark_rl.common.running import run


async def _interrupted() -> None:
    """A main coroutine one of whose tasks is interrupted, as by Ctrl-C in the middle of its computation."""

    async def compute() -> None:
        raise KeyboardInterrupt

    await asyncio.gather(asyncio.create_task(compute()), asyncio.sleep(10))


async def _failed() -> None:
    async def compute() -> None:
        raise ValueError("of a task that nobody waits for")

    asyncio.get_running_loop().task = asyncio.create_task(compute())  # type: ignore[attr-defined]  keeps it
    await asyncio.sleep(0.01)


def test_nothing_but_the_interruption_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "asyncio"), pytest.raises(KeyboardInterrupt):
        run(_interrupted())
    gc.collect()
    assert caplog.records == []


def test_other_failures_of_lost_tasks_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "asyncio"):
        run(_failed())
        gc.collect()
    assert "of a task that nobody waits for" in caplog.text
