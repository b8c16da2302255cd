"""Parsers of completions.

Invariant: `Prompt.parse` is the only way to read a completion. The fork criterion, the penalties and the statistics read the
same `Parsed`. `parse` reads tagged answers; only tagged answers are demonstrated and trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from spark_rl.prompting.instructions import MODES, Modes
from spark_rl.types import Mode, Parsed

__all__ = ["parse", "parse_plain", "parse_react", "respond"]

_ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
# An observation that the model invents is no part of its turn.
_IMAGINED = re.compile(r"^Observation\b", re.MULTILINE)
_ACT = re.compile(r"^Action:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_REACT = re.compile(r"\s*Thought:(?P<thought>.*?\S.*?)^Action:[^\n]*\S[^\n]*\s*", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class _Grammar:
    """The patterns of answers in some modes."""

    tag: re.Pattern[str]
    strict: re.Pattern[str]
    reasoning: re.Pattern[str]

    @classmethod
    def of(cls, modes: Sequence[Mode]) -> _Grammar:
        names = "|".join(modes)
        block = rf"<({names})>(.*?)</\1>"
        return cls(
            re.compile(rf"</?(?:{names}|action)>"),
            re.compile(rf"\s*{block}\s*<action>(.*?)</action>\s*", re.DOTALL),
            re.compile(block, re.DOTALL),
        )


_GRAMMARS = {name: _Grammar.of(modes) for name, modes in MODES.items()}


def parse(text: str, modes: Modes = "spark") -> Parsed:
    """Read a completion in SPARK's modes, or in RLVMR's; tags of other modes are plain text.

    A completion is well-formed when it has one non-empty reasoning block, then one non-empty action block, and otherwise
    only white space. In any completion, the mode is that of the non-empty reasoning block where there is exactly one, and
    the action is the content of the action block where there is exactly one. Otherwise the mode is None and the action
    empty, which changes nothing in any world.
    """
    grammar = _GRAMMARS[modes]
    blocks = [(mode, body.strip()) for mode, body in grammar.reasoning.findall(text) if body.strip()]
    mode, reasoning = blocks[0] if len(blocks) == 1 else (None, "")
    actions = _ACTION.findall(text)
    action = actions[0].strip() if len(actions) == 1 and not grammar.tag.search(actions[0]) else ""
    strict = grammar.strict.fullmatch(text)
    well_formed = bool(strict and reasoning and action) and not grammar.tag.search(reasoning)
    return Parsed(cast("Mode | None", mode), reasoning, action, well_formed)


def parse_react(text: str) -> Parsed:
    """Read `Thought: ...` and `Action: ...` (ReAct, arXiv 2210.03629), up to an observation that the model invented.

    The action is empty where there is not exactly one line of action.
    """
    own = _IMAGINED.split(text, maxsplit=1)[0]
    actions = _ACT.findall(own)
    action = actions[0] if len(actions) == 1 else ""
    strict = _REACT.fullmatch(own) if action else None
    return Parsed(None, strict["thought"].strip() if strict else "", action, strict is not None and own == text)


def parse_plain(text: str) -> Parsed:
    """Read an answer of one line, which is the action; the action of a longer answer is empty."""
    line = text.strip()
    action = "" if "\n" in line else line
    return Parsed(None, "", action, bool(action))


def respond(mode: Mode, reasoning: str, action: str) -> str:
    """The well-formed completion of a mode, a reasoning and an action; `parse` is the inverse."""
    return f"<{mode}>{reasoning}</{mode}><action>{action}</action>"
