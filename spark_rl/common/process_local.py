"""Things that belong to one process, such as its helpers: made at their first use, closed when the process ends.

Invariant: a forked child makes its own things and never touches its parent's, since two processes cannot share a pipe.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["ProcessLocal"]

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ProcessLocal(Generic[Key, Value]):
    """The things of this process, by key. Threads may share it."""

    def __init__(self, make: Callable[[Key], Value], close: Callable[[Value], None]) -> None:
        """An empty set of things.

        Args:
            make: makes the thing of a key; quick, since other threads wait for it.
            close: ends a thing.
        """
        self._make, self._close = make, close
        self._things: dict[tuple[int, Key], Value] = {}
        self._guard = threading.Lock()
        atexit.register(self.close)

    def of(self, key: Key) -> Value:
        """The thing of a key."""
        with self._guard:
            place = os.getpid(), key
            if place not in self._things:
                self._things[place] = self._make(key)
            return self._things[place]

    def all(self) -> dict[Key, Value]:
        """All things of this process, by key."""
        with self._guard:
            return {key: thing for (process, key), thing in self._things.items() if process == os.getpid()}

    def close(self) -> None:
        """End and forget all things of this process; the next use of a key makes another."""
        for key, thing in self.all().items():
            self._close(thing)
            del self._things[os.getpid(), key]
