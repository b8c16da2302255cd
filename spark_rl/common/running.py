"""The one event loop of a command.

Invariant: Ctrl-C interrupts at once, also in the middle of a computation. `asyncio.run` alone would wait until the running
task gives way, which an update of a large model does only after minutes.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's main coroutine to its end; what it leaves open is closed, whatever happens."""
    ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:  # any handler but the default is left alone by asyncio
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return asyncio.run(main)
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
