"""A teacher's reasons for the steps of paths that were won.

Invariants
----------
* Nothing but the reasoning changes: each annotated step is one well-formed block and the action that was taken, as
  `prompting.parse` reads it, so that the trajectory plays as before.
* A trajectory is annotated whole or not at all; one that is not is named with the reason.
* The same trajectories and settings ask the same questions. Since a server's answers are kept before they are used, a job
  that was killed asks for nothing twice.

A path goes to the teacher in pieces, each with the steps before it and the reasons these were given, so that long
trajectories do not outgrow an answer (and are not, for that, missing from what is learnt). The question ends with the
answer's own form, actions filled in. Answers are searched for JSON of that form, usual defects are mended (`read`), and
what cannot be used is asked for again with what is wrong about it. Slips are shown as such and keep their own text: they
are not learnt, and a teacher has no good reason for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from spark_rl.data.format import Demonstration
from spark_rl.engines.answers import Answer
from spark_rl.engines.openai import Refused, Server, gather
from spark_rl.errors import at_least
from spark_rl.prompting.instructions import MODES, Modes
from spark_rl.prompting.parsing import parse, respond
from spark_rl.types import Message, Mode, Node

__all__ = ["PROMPT_VERSION", "Annotator", "Asking", "Unusable", "question", "read", "schema"]

PROMPT_VERSION = "annotate-1"
"""Goes up when `QUESTION`, `SAID` or the form of a path changes."""

QUESTION = """\
Below are a task in a text world and steps that lead to its solution: at each step what the agent saw and what it then did. \
What the agent thought is missing. Write it down for each step that says "Reason: ?".

A reason is one short sentence in the agent's own voice, as thought just before it acts. It rests on the task and on what \
was seen up to that step; of what comes later the agent knows nothing. It has one of {number} modes:
{modes}

The actions are given and stay as they are."""

_EXPLORE = """\
- explore: information is missing, or the last result was not what was expected. Name the places, items or actions that \
could help, and say which to try."""

SAID: dict[Modes, str] = {
    "spark": f"""\
{_EXPLORE}
- think: things go as expected. Keep track of what is done and what comes next.""",
    "rlvmr": f"""\
- planning: the first step, and wherever the plan has proved wrong. Break the whole task down, in one line: Step 1: ... \
Step 2: ...
{_EXPLORE}
- reflection: the last action failed, or the last ones led nowhere. Say why, and what to try instead.
- monitor: things go as expected. Name the step of the plan that is under way, and what it needs next.""",
}
"""What a teacher is told of the modes: SPARK's (arXiv 2601.20209) or RLVMR's (arXiv 2507.22844)."""

FORM = "Answer with this JSON and nothing else, each mode ({modes}) and reason filled in:"
AGAIN = "This cannot be used: {wrong}. Answer once more with all of the JSON that was asked for, and nothing else."


@dataclass(frozen=True)
class Asking:
    """How a teacher is asked for reasons."""

    piece: int = 10
    """Most steps of one question; the steps before are shown."""
    attempts: int = 4
    """How often a question may be asked until its answer can be used."""
    structured: Literal["auto", "json-schema", "none"] = "auto"
    """Have the server hold the answer to its form (`response_format`); auto stops where the server refuses that field."""
    temperature: float = 0.0
    """0 means greedy."""
    max_tokens: int = 2048
    """Most tokens of an answer."""

    def __post_init__(self) -> None:
        at_least("", self, piece=1, attempts=1, temperature=0, max_tokens=1)


class Unusable(Exception):
    """An answer that cannot be used; the message tells the teacher what is wrong with it."""


# -- the question ---------------------------------------------------------------------------------------------------


def question(shown: Demonstration, start: int, stop: int, modes: Modes = "spark") -> list[Message]:
    """What a teacher is asked about steps `start` to `stop` (from 0, without `stop`) of a trajectory.

    The steps before are shown with the reasons that the trajectory has for them.
    """
    tree, number = shown.tree, {2: "two", 4: "four"}[len(MODES[modes])]
    parts = [QUESTION.format(number=number, modes=SAID[modes]), f"Task: {tree.task.instruction}"]
    for step, node in enumerate(tree.nodes[:stop]):
        seen = tree.nodes[step - 1].observation if step else tree.observation
        head = f"Step {step + 1} of {len(tree.nodes)}\nSeen: {seen}"
        parts.append(f"{head}\n{_reason(shown, step, start)}\nAction: {node.action}")
    form = [{"action": tree.nodes[step].action, "mode": "", "reason": ""} for step in _asked(shown, start, stop)]
    parts.append(f"{FORM.format(modes=_choice(modes))}\n{json.dumps({'steps': form}, ensure_ascii=False)}")
    return [{"role": "user", "content": "\n\n".join(parts)}]


def schema(modes: Modes) -> dict[str, Any]:
    """`response_format` of servers that hold answers to a form."""
    said = {
        "action": {"type": "string"},
        "mode": {"type": "string", "enum": list(MODES[modes])},
        "reason": {"type": "string"},
    }
    step = {"type": "object", "properties": said, "required": list(said), "additionalProperties": False}
    steps = {"steps": {"type": "array", "items": step}}
    form = {"type": "object", "properties": steps, "required": ["steps"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "reasons", "strict": True, "schema": form}}


def _choice(modes: Modes) -> str:
    *some, last = MODES[modes]
    return f"{', '.join(some)} or {last}"


def _asked(shown: Demonstration, start: int, stop: int) -> list[int]:
    """Steps of a piece that want a reason."""
    return [step for step in range(start, stop) if step not in shown.slips]


def _reason(shown: Demonstration, step: int, start: int) -> str:
    if step in shown.slips:
        return "A mistake, left as it is."
    node = shown.tree.nodes[step]
    return f"Reason ({node.mode}): {node.reasoning}" if step < start else "Reason: ?"


# -- the answer -----------------------------------------------------------------------------------------------------


def read(text: str, actions: Sequence[str], modes: Modes = "spark") -> list[str]:
    """Completions from an answer: a reasoning block and the action, one for each action.

    Mended are text and code fences around the JSON, a list without its object, tags around a reason, one of them missing,
    a mode said by tags alone, and line breaks.

    Raises:
        Unusable: not one usable reason for each action, in their order.
    """
    items = _items(text)
    if len(items) != len(actions):
        raise Unusable(f"it holds {len(items)} steps, and {len(actions)} were asked for")
    return [
        _completion(number, item, action, modes) for number, (item, action) in enumerate(zip(items, actions, strict=True), 1)
    ]


def _items(text: str) -> list[dict[str, Any]]:
    """The entries of the first JSON in a text that has the form."""
    decoder = json.JSONDecoder(strict=False)  # line breaks inside a text are let pass
    for place in (match.start() for match in re.finditer(r"[\[{]", text)):
        try:
            found: Any = decoder.raw_decode(text, place)[0]
        except ValueError:
            continue
        if isinstance(found, dict):
            found = cast("dict[str, Any]", found).get("steps")
        if isinstance(found, list) and all(isinstance(item, dict) for item in cast("list[Any]", found)):
            return cast("list[dict[str, Any]]", found)
    raise Unusable('it holds no JSON of the form {"steps": [{"action": ..., "mode": ..., "reason": ...}, ...]}')


def _completion(number: int, item: dict[str, Any], action: str, known: Modes) -> str:
    said, mode, reason = (str(item.get(name) or "").strip() for name in ("action", "mode", "reason"))
    if said != action:
        raise Unusable(f"its step {number} has the action {json.dumps(said)}, which must stay {json.dumps(action)}")
    tag = re.compile(rf"</?({'|'.join(MODES[known])})>", re.IGNORECASE)
    tags = tag.findall(reason)
    modes = {name.lower() for name in (mode, *tags) if name}
    if len(modes) != 1 or len(tags) > 2 or not modes <= set[str](MODES[known]):
        raise Unusable(
            f"its step {number} must have one mode, {_choice(known)}, and has {' and '.join(sorted(modes)) or 'none'}"
        )
    mode = cast(Mode, modes.pop())
    reason = " ".join(tag.sub("", reason).split())
    text = respond(mode, reason, action)
    parsed = parse(text, known)
    if not parsed.well_formed or (parsed.mode, parsed.reasoning, parsed.action) != (mode, reason, action):
        raise Unusable(f"its step {number} has the reason {json.dumps(reason)}, which must be one sentence without tags")
    return text


# -- asking ---------------------------------------------------------------------------------------------------------


class Annotator:
    """Asks a server; made for one job."""

    def __init__(self, server: Server, asking: Asking, modes: Modes = "spark") -> None:
        self.server, self.asking = server, asking
        self.modes: Modes = modes
        self.structured = asking.structured != "none"
        """Whether the server is asked to hold answers to the form; found out where it is auto."""

    async def annotate(
        self, given: Sequence[Demonstration], advance: Callable[[int], None] = lambda _: None
    ) -> list[Demonstration | str]:
        """Each trajectory with the teacher's reasons, or why it has none.

        Raises:
            PolicyFailure: the server failed; what it answered is kept.
        """
        done = 0

        async def one(shown: Demonstration) -> Demonstration | str:
            nonlocal done
            try:
                result = await self.one(shown)
            except (Unusable, Refused) as error:
                result = str(error)
            done += 1
            advance(done)
            return result

        return await gather([one(shown) for shown in given])

    async def one(self, shown: Demonstration) -> Demonstration:
        """A trajectory with the teacher's reasons for what is learnt of it.

        Raises:
            Unusable: no answer to one of its questions could be used.
            Refused: the server does not answer one.
            PolicyFailure: the server failed.
        """
        size, date = self.asking.piece, ""
        for start in range(0, len(shown.tree.nodes), size):
            stop = min(start + size, len(shown.tree.nodes))
            if asked := _asked(shown, start, stop):
                texts, day = await self._piece(shown, start, stop, [shown.tree.nodes[step].action for step in asked])
                shown, date = _with(shown, dict(zip(asked, texts, strict=True)), self.modes), max(date, day)
        come_from = replace(
            shown.origin, source="annotated", author=self.server.model, date=date, prompt_version=PROMPT_VERSION
        )
        return replace(shown, origin=come_from)

    async def _piece(self, shown: Demonstration, start: int, stop: int, actions: Sequence[str]) -> tuple[list[str], str]:
        """Completions for the steps of a piece that want one, and the day of the answer."""
        first = messages = question(shown, start, stop, self.modes)
        wrong = ""
        for attempt in range(self.asking.attempts):
            answer = await self._ask(messages, attempt)
            try:
                if answer.finish == "content_filter":
                    raise Unusable("the server's filter stopped it")
                return read(answer.text, actions, self.modes), answer.date
            except Unusable as error:
                wrong = str(error)
                if answer.finish == "length":
                    wrong = f"it was cut at {self.asking.max_tokens} tokens (raise max_tokens, or lower piece)"
                messages = [
                    *first,
                    {"role": "assistant", "content": answer.text or "(nothing)"},
                    {"role": "user", "content": AGAIN.format(wrong=wrong)},
                ]
        raise Unusable(
            f"steps {start + 1} to {stop}: none of {self.asking.attempts} answers could be used; of the last, {wrong}"
        )

    async def _ask(self, messages: Sequence[Message], attempt: int) -> Answer:
        """An answer, in the form where the server can; the attempt tells equal questions apart."""
        limits: dict[str, Any] = {
            "max_tokens": self.asking.max_tokens,
            "temperature": self.asking.temperature,
            "seed": attempt,
        }
        if not self.structured:
            return await self.server.ask(messages, **limits)
        try:
            return await self.server.ask(messages, **limits, response_format=schema(self.modes))
        except Refused:
            if self.asking.structured != "auto":
                raise
        answer = await self.server.ask(messages, **limits)
        self.structured = False  # it answers without, so it was the field
        return answer


def _with(shown: Demonstration, texts: dict[int, str], modes: Modes) -> Demonstration:
    """The trajectory with other completions at some steps."""

    def said(node: Node, text: str) -> Node:
        read = parse(text, modes)
        return replace(node, text=text, mode=read.mode, reasoning=read.reasoning, well_formed=read.well_formed)

    nodes = [said(node, texts[step]) if step in texts else node for step, node in enumerate(shown.tree.nodes)]
    return replace(shown, tree=replace(shown.tree, nodes=nodes))
