"""A prompt that is written afresh at each step and shows the last few steps, as in the paper."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """Each step's prompt is written afresh and shows the last few (observation, action) pairs, as in the paper."""

    history: int = 5
    """How many past steps are shown."""
