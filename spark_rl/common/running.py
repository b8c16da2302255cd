"""The one event loop of a command.

Invariant: Ctrl-C interrupts at once, also in the middle of a computation. `asyncio.run` alone would wait until the running
task awaits something, which can take minutes in an update of a large model.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import TypeVar

__all__ = ["run"]

T = TypeVar("T")


def run(main: Coroutine[object, None, T]) -> T:
    """Run the main coroutine of a command to its end; tasks that are still open then are cancelled."""
    replaces_handler = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if replaces_handler:  # asyncio replaces the default handler only
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return asyncio.run(main)
    finally:
        if replaces_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
