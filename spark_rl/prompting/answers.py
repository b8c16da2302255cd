"""The forms that an answer may take: what a prompt says about each, and how an answer in it is read.

Invariant: nothing else asks which form it is. A new form is a name in `instructions.Style` and an entry of `ANSWERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spark_rl.prompting.instructions import INSTRUCTIONS, PLAIN, REACT, Modes, Style
from spark_rl.prompting.parsing import parse, parse_plain, parse_react
from spark_rl.types import Parsed

__all__ = ["ANSWERS", "AnswerForm"]


@dataclass(frozen=True)
class AnswerForm:
    """One form of answers. Forms without tags do not look at the modes that they are given."""

    instructions: Callable[[Modes], str]
    """What stands before the task; the empty string where a prompt explains nothing."""
    read: Callable[[str, Modes], Parsed]
    """A completion and what it means."""


ANSWERS: dict[Style, AnswerForm] = {
    "full": AnswerForm(INSTRUCTIONS.__getitem__, parse),
    "none": AnswerForm(lambda _: "", parse),
    "react": AnswerForm(lambda _: REACT, lambda text, _: parse_react(text)),
    "plain": AnswerForm(lambda _: PLAIN, lambda text, _: parse_plain(text)),
}
"""By the value of `prompt.instructions`."""
