"""Wall-clock seconds by phase, where phases of several trees may overlap.

Invariant: a phase's time is the time during which at least one tree was in the phase, so that no second counts twice in it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from spark_rl.types import Spent

__all__ = ["Clock"]


@dataclass
class Clock:
    """Measures the seconds of each phase and adds them to `Spent.seconds`."""

    spent: Spent
    _inside: Counter[str] = field(default_factory=Counter[str])
    _since: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        """Time the block."""
        if not self._inside[name]:
            self._since[name] = time.perf_counter()
        self._inside[name] += 1
        try:
            yield
        finally:
            self._inside[name] -= 1
            if not self._inside[name]:
                lap = time.perf_counter() - self._since[name]
                self.spent.seconds[name] = self.spent.seconds.get(name, 0.0) + lap
