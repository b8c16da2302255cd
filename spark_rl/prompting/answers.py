"""The forms of answers: the instructions for each form, and the parser of its completions.

Invariant: no other module depends on the form. A new form is a name in `instructions.Style` and an entry of `ANSWERS`.
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
    """One form of answers. Forms without tags ignore the modes."""

    instructions: Callable[[Modes], str]
    """The text before the task; empty where a prompt explains nothing."""
    read: Callable[[str, Modes], Parsed]
    """The parser of a completion."""


ANSWERS: dict[Style, AnswerForm] = {
    "full": AnswerForm(INSTRUCTIONS.__getitem__, parse),
    "none": AnswerForm(lambda _: "", parse),
    "react": AnswerForm(lambda _: REACT, lambda text, _: parse_react(text)),
    "plain": AnswerForm(lambda _: PLAIN, lambda text, _: parse_plain(text)),
}
"""The forms by the value of `prompt.instructions`."""
