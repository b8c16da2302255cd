"""A prompt that is the whole episode as a growing conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Transcript"]


@dataclass(frozen=True)
class Transcript:
    """The whole episode as a growing conversation: each step appends, so that computation is shared along the tree."""

    actions: Literal["first", "changes", "all"] = "first"
    """At which turns admissible actions are listed: the first; the first, and then what is new and what is gone; all."""
    repeat_task: bool = False
    """Say the task again after every observation, where a small model finds it."""
