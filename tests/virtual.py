"""An event loop whose clock is simulated: sleeping takes no time, and what a program's waiting would take can be read off.

So speed that comes from waiting side by side can be tested without depending on how busy the machine is.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _NoWaiting(selectors.DefaultSelector):
    """Instead of waiting for a time, lets the clock jump there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found and timeout:
            self.now += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.virtual = _NoWaiting()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now


def elapsed(main: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """What a coroutine returns, and the simulated seconds that it took."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        result = runner.run(main)
        return result, runner.get_loop().time()
