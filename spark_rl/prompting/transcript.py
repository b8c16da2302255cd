"""A context that writes the whole episode as a growing conversation.

Invariant: unless a prompt was shortened, its token ids are those of the parent's prompt and completion plus new ones, so
that the key-value cache stays valid from step to step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spark_rl.contracts import Encoder
from spark_rl.prompting.instructions import ADMISSIBLE, CHANGED
from spark_rl.types import Message, Rendered, Situation

__all__ = ["Transcript"]


@dataclass(frozen=True)
class Transcript:
    """The whole episode as a growing conversation: a step appends a turn, so trees share computation."""

    actions: Literal["first", "changes", "all"] = "first"
    """Which turns list the admissible actions. `first`: the first turn. `changes`: the first turn, and later turns list new
    and gone actions. `all`: all turns."""
    repeat_task: bool = False
    """Repeat the task after every observation, which helps small models."""

    def steps(self, taken: int) -> int:
        """All steps."""
        return taken

    def write(self, situation: Situation, *, history: int, listed: int | None, encoder: Encoder | None) -> Rendered:
        """The conversation of the last `history` answers; only its last turn loses actions."""
        path, tree = situation.path, situation.tree
        start = len(path) - history
        messages: list[Message] = []
        cut = 0
        for step in range(start, len(path) + 1):
            heading, lines = self._listing(situation, step, opening=step == start)
            if step == len(path):
                cut = len(lines) - len(lines[:listed])
                lines = lines[:listed]
            content = self._turn(situation, step, heading, lines, opening=step == start)
            messages.append({"role": "user", "content": content})
            if step < len(path):
                messages.append({"role": "assistant", "content": tree.nodes[path[step]].text})
        if encoder is None:
            ids = None
        elif path and start == 0 and not cut:
            last = tree.nodes[path[-1]]
            ids = encoder.extend((*last.prompt, *last.completion), messages[-1]["content"])
        else:
            ids = encoder.conversation(messages)
        return Rendered(tuple(messages), ids, start + cut)

    def _turn(self, situation: Situation, step: int, heading: str, lines: tuple[str, ...], *, opening: bool) -> str:
        """The user's turn before step `step`; the first turn of a conversation begins with the task."""
        parts = [situation.head] if opening else []
        parts.append(situation.observation(step))
        if lines:
            parts += [heading, *lines]
        if self.repeat_task:
            parts.append(f"Task: {situation.tree.task.instruction}")
        return "\n".join(parts)

    def _listing(self, situation: Situation, step: int, *, opening: bool) -> tuple[str, tuple[str, ...]]:
        """Heading and lines of the actions that the turn before step `step` lists."""
        now = situation.actions(step)
        if opening or self.actions == "all":
            return ADMISSIBLE, now
        if self.actions == "first":
            return "", ()
        before = situation.actions(step - 1)
        new = (f"+ {action}" for action in now if action not in before)
        gone = (f"- {action}" for action in before if action not in now)
        return CHANGED, (*new, *gone)
