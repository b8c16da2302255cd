"""The one event loop of a command, and coroutines side by side in it.

Invariant: Ctrl-C interrupts at once, also in the middle of a computation, and only the command speaks of it. `asyncio.run`
alone would wait until the running task awaits something, which can take minutes in an update of a large model, and it would
print a traceback of the task that was interrupted.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine, Sequence
from types import FrameType
from typing import Any, TypeVar

__all__ = ["run", "side_by_side"]

T = TypeVar("T")


def run(main: Coroutine[object, None, T]) -> T:
    """Run the main coroutine of a command to its end; tasks that are still open then are cancelled."""
    replaces_handler = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if replaces_handler:  # asyncio replaces the default handler only
        signal.signal(signal.SIGINT, _interrupt)
    try:
        with asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(_report)
            return runner.run(main)
    finally:
        if replaces_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)


async def side_by_side(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines until all have ended; the first error cancels the others and is raised unchanged."""
    if len(work) == 1:
        await work[0]
        return
    running = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*running)
    except BaseException:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        raise


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what went wrong in a task that nobody waits for any more, as usual, but no interruption."""
    if not isinstance(context.get("exception"), KeyboardInterrupt):
        loop.default_exception_handler(context)
