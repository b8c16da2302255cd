"""A prompt that is written afresh at each step and shows the last few steps, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spark_rl.contracts import Encoder
from spark_rl.prompting.instructions import ADMISSIBLE
from spark_rl.types import Message, Rendered, Situation

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """Each step's prompt is written afresh and shows the last few (observation, action) pairs, as in the paper."""

    history: int = 5
    """How many past steps are shown."""

    def steps(self, taken: int) -> int:
        """The last `history` steps, or all where fewer were taken."""
        return min(self.history, taken)

    def write(self, situation: Situation, *, history: int, listed: int | None, encoder: Encoder | None) -> Rendered:
        """One turn of the user, with the task, the last `history` steps and what can be seen and done now."""
        actions = situation.actions()
        shown = actions[:listed]
        messages: tuple[Message, ...] = ({"role": "user", "content": _text(situation, history, shown)},)
        ids = encoder.conversation(messages) if encoder else None
        left_out = self.steps(len(situation.path)) - history + len(actions) - len(shown)
        return Rendered(messages, ids, left_out)


def _text(situation: Situation, history: int, actions: Sequence[str]) -> str:
    taken = len(situation.path)
    parts = [situation.head]
    if history:
        steps = [situation.tree.nodes[index] for index in situation.path]
        # Of what was thought only the plan outlives its step (RLVMR; without its modes there is none).
        plans = [step.reasoning for step in steps if step.mode == "planning"]
        parts += [f"Your plan: {plan}" for plan in plans[-1:]]
        parts.append(f"Steps taken: {taken}. The last {history}:")
        parts += [
            f"[Observation {i + 1}: '{situation.observation(i)}', Action {i + 1}: '{steps[i].action}']"
            for i in range(taken - history, taken)
        ]
    parts.append(f"Observation {taken + 1}: {situation.observation(taken)}")
    return "\n".join([*parts, *([ADMISSIBLE, *actions] if actions else [])])
