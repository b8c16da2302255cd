"""Processes that end when the process that started them ends, however it ends."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["follow"]


def follow(parent: int, last: Callable[[], None] = lambda: None) -> None:
    """End this process, at once and without cleaning up, when another one has ended.

    Args:
        parent: id of the other process.
        last: called before this process ends.
    """

    def wait() -> None:
        with suppress(ProcessLookupError):  # it has ended already
            ended = select.poll()
            ended.register(os.pidfd_open(parent))
            ended.poll()
        last()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
