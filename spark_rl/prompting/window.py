"""A context that writes a new prompt at each step, with the last few steps, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spark_rl.contracts import Encoder
from spark_rl.prompting.instructions import ADMISSIBLE
from spark_rl.types import Message, Rendered, Situation

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """A new prompt at each step, with the last few (observation, action) pairs, as in the paper."""

    history: int = 5
    """Most past steps in a prompt."""

    def steps(self, taken: int) -> int:
        """The last `history` steps, or all where fewer were taken."""
        return min(self.history, taken)

    def write(self, situation: Situation, *, history: int, listed: int | None, encoder: Encoder | None) -> Rendered:
        """One turn of the user, with the task, the last `history` steps, the current observation and the actions."""
        actions = situation.actions()
        first = actions[:listed]
        messages: tuple[Message, ...] = ({"role": "user", "content": _text(situation, history, first)},)
        ids = encoder.conversation(messages) if encoder else None
        left_out = self.steps(len(situation.path)) - history + len(actions) - len(first)
        return Rendered(messages, ids, left_out)


def _text(situation: Situation, history: int, actions: Sequence[str]) -> str:
    taken = len(situation.path)
    parts = [situation.head]
    if history:
        steps = [situation.tree.nodes[index] for index in situation.path]
        # Of all reasoning, later prompts show the latest plan alone (RLVMR; SPARK's modes have no plan).
        plans = [step.reasoning for step in steps if step.mode == "planning"]
        parts += [f"Your plan: {plan}" for plan in plans[-1:]]
        parts.append(f"Steps taken: {taken}. The last {history}:")
        parts += [
            f"[Observation {i + 1}: '{situation.observation(i)}', Action {i + 1}: '{steps[i].action}']"
            for i in range(taken - history, taken)
        ]
    parts.append(f"Observation {taken + 1}: {situation.observation(taken)}")
    return "\n".join([*parts, *([ADMISSIBLE, *actions] if actions else [])])
