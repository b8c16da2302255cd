"""A teacher's reasons for the steps of successful trajectories.

Invariants
----------
* Only the reasoning changes: each annotated step is one well-formed block and the action that was taken, as
  `prompting.parse` reads it, so that the trajectory plays as before.
* A trajectory is annotated whole or not at all; the reason is reported where it is not.
* The same trajectories and settings make the same requests. A server's answers are stored before they are used, so a job
  that was killed and starts again repeats no request.

A trajectory goes to the teacher in pieces, each with the steps before it and their reasons, so that the answer for a long
trajectory fits into `max_tokens`. The question ends with the form of the answer, where the actions are filled in. `read`
searches an answer for JSON of this form and repairs usual defects; where the answer cannot be used, the question is
repeated with the error. Slips are marked in the question and keep their own text: nothing is trained on them, and a
teacher has no good reason for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, cast

from spark_rl.data.format import Demonstration
from spark_rl.engines.answers import Answer
from spark_rl.engines.openai import Refused, Server, gather
from spark_rl.errors import at_least
from spark_rl.prompting.instructions import MODES, Modes
from spark_rl.prompting.parsing import parse, respond
from spark_rl.types import Message, Mode, Node

__all__ = ["PROMPT_VERSION", "Annotator", "Asking", "Unusable", "question", "read", "schema"]

PROMPT_VERSION = "annotate-1"
"""Goes up when `QUESTION`, `GUIDE` or the form of a trajectory in a question changes."""

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

GUIDE: dict[Modes, str] = {
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
"""The description of the modes for a teacher: SPARK's (arXiv 2601.20209) or RLVMR's (arXiv 2507.22844)."""

FORM = "Answer with this JSON and nothing else, each mode ({modes}) and reason filled in:"
AGAIN = "This cannot be used: {wrong}. Answer once more with all of the JSON that was asked for, and nothing else."


@dataclass(frozen=True)
class Asking:
    """Settings of the questions to a teacher."""

    piece: int = 10
    """Most steps of one question; the question also shows all steps before."""
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
    """An answer that cannot be used; the message, which goes to the teacher, says what is wrong."""


class _Limits(TypedDict):
    """Arguments of `Server.ask`."""

    max_tokens: int
    temperature: float
    seed: int


# -- the question ---------------------------------------------------------------------------------------------------


def question(trajectory: Demonstration, start: int, stop: int, modes: Modes = "spark") -> list[Message]:
    """The question to a teacher about steps `start` to `stop` (from 0, without `stop`) of a trajectory.

    It shows the steps before `start` with the reasons that the trajectory has for them.
    """
    tree, number = trajectory.tree, {2: "two", 4: "four"}[len(MODES[modes])]
    parts = [QUESTION.format(number=number, modes=GUIDE[modes]), f"Task: {tree.task.instruction}"]
    for step, node in enumerate(tree.nodes[:stop]):
        seen = tree.nodes[step - 1].observation if step else tree.observation
        head = f"Step {step + 1} of {len(tree.nodes)}\nSeen: {seen}"
        parts.append(f"{head}\n{_reason(trajectory, step, start)}\nAction: {node.action}")
    form = [{"action": tree.nodes[step].action, "mode": "", "reason": ""} for step in _open(trajectory, start, stop)]
    parts.append(f"{FORM.format(modes=_choice(modes))}\n{json.dumps({'steps': form}, ensure_ascii=False)}")
    return [{"role": "user", "content": "\n\n".join(parts)}]


def schema(modes: Modes) -> dict[str, object]:
    """`response_format` for servers that can enforce the form of an answer."""
    properties = {
        "action": {"type": "string"},
        "mode": {"type": "string", "enum": list(MODES[modes])},
        "reason": {"type": "string"},
    }
    step = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    steps = {"steps": {"type": "array", "items": step}}
    form = {"type": "object", "properties": steps, "required": ["steps"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "reasons", "strict": True, "schema": form}}


def _choice(modes: Modes) -> str:
    *some, last = MODES[modes]
    return f"{', '.join(some)} or {last}"


def _open(trajectory: Demonstration, start: int, stop: int) -> list[int]:
    """Steps of a piece that need a reason: all but slips."""
    return [step for step in range(start, stop) if step not in trajectory.slips]


def _reason(trajectory: Demonstration, step: int, start: int) -> str:
    if step in trajectory.slips:
        return "A mistake, left as it is."
    node = trajectory.tree.nodes[step]
    return f"Reason ({node.mode}): {node.reasoning}" if step < start else "Reason: ?"


# -- the answer -----------------------------------------------------------------------------------------------------


def read(text: str, actions: Sequence[str], modes: Modes = "spark") -> list[str]:
    """Completions from an answer, one for each action: a reasoning block and the action.

    These defects are repaired: text and code fences around the JSON, a list without its object, tags around a reason (also
    where one of the two is missing), a mode that only the tags name, and line breaks.

    Raises:
        Unusable: the answer does not have one usable reason for each action, in the order of the actions.
    """
    items = _items(text)
    if len(items) != len(actions):
        raise Unusable(f"it holds {len(items)} steps, and {len(actions)} were asked for")
    return [
        _completion(number, item, action, modes) for number, (item, action) in enumerate(zip(items, actions, strict=True), 1)
    ]


def _items(text: str) -> list[dict[str, object]]:
    """The entries of the first JSON value in a text that has the form."""
    decoder = json.JSONDecoder(strict=False)  # allows line breaks inside a text
    for place in (match.start() for match in re.finditer(r"[\[{]", text)):
        try:
            value: object = decoder.raw_decode(text, place)[0]
        except ValueError:
            continue
        if isinstance(value, dict):
            value = cast("dict[str, object]", value).get("steps")
        if isinstance(value, list) and all(isinstance(item, dict) for item in cast("list[object]", value)):
            return cast("list[dict[str, object]]", value)
    raise Unusable('it holds no JSON of the form {"steps": [{"action": ..., "mode": ..., "reason": ...}, ...]}')


def _completion(number: int, item: dict[str, object], action: str, modes: Modes) -> str:
    answered, mode, reason = (str(item.get(name) or "").strip() for name in ("action", "mode", "reason"))
    if answered != action:
        raise Unusable(f"its step {number} has the action {json.dumps(answered)}, which must stay {json.dumps(action)}")
    tag = re.compile(rf"</?({'|'.join(MODES[modes])})>", re.IGNORECASE)
    tags = tag.findall(reason)
    named = {name.lower() for name in (mode, *tags) if name}
    if len(named) != 1 or len(tags) > 2 or not named <= set[str](MODES[modes]):
        raise Unusable(
            f"its step {number} must have one mode, {_choice(modes)}, and has {' and '.join(sorted(named)) or 'none'}"
        )
    mode = cast(Mode, named.pop())
    reason = " ".join(tag.sub("", reason).split())
    text = respond(mode, reason, action)
    parsed = parse(text, modes)
    if not parsed.well_formed or (parsed.mode, parsed.reasoning, parsed.action) != (mode, reason, action):
        raise Unusable(f"its step {number} has the reason {json.dumps(reason)}, which must be one sentence without tags")
    return text


# -- asking ---------------------------------------------------------------------------------------------------------


class Annotator:
    """Asks a server for the reasons of the trajectories of one job."""

    def __init__(self, server: Server, asking: Asking, modes: Modes = "spark") -> None:
        self.server, self.asking = server, asking
        self.modes: Modes = modes
        self.structured = asking.structured != "none"
        """Whether requests ask the server to enforce the form; with `auto`, until the server refuses such a request."""

    async def annotate(
        self, trajectories: Sequence[Demonstration], advance: Callable[[int], None] = lambda _: None
    ) -> list[Demonstration | str]:
        """Each trajectory with the teacher's reasons, or the reason why it could not be annotated.

        Raises:
            PolicyFailure: the server failed; its earlier answers are stored.
        """
        done = 0

        async def one(trajectory: Demonstration) -> Demonstration | str:
            nonlocal done
            try:
                result = await self.one(trajectory)
            except (Unusable, Refused) as error:
                result = str(error)
            done += 1
            advance(done)
            return result

        return await gather([one(trajectory) for trajectory in trajectories])

    async def one(self, trajectory: Demonstration) -> Demonstration:
        """A trajectory with the teacher's reasons for all steps but slips.

        Raises:
            Unusable: no answer to one of its questions could be used.
            Refused: the server refuses one of its questions.
            PolicyFailure: the server failed.
        """
        size, date = self.asking.piece, ""
        for start in range(0, len(trajectory.tree.nodes), size):
            nodes = trajectory.tree.nodes
            stop = min(start + size, len(nodes))
            if steps := _open(trajectory, start, stop):
                texts, day = await self._piece(trajectory, start, stop, [nodes[step].action for step in steps])
                trajectory, date = _with(trajectory, dict(zip(steps, texts, strict=True)), self.modes), max(date, day)
        origin = replace(
            trajectory.origin, source="annotated", author=self.server.model, date=date, prompt_version=PROMPT_VERSION
        )
        return replace(trajectory, origin=origin)

    async def _piece(
        self, trajectory: Demonstration, start: int, stop: int, actions: Sequence[str]
    ) -> tuple[list[str], str]:
        """Completions for the steps of a piece that need a reason, and the day of the answer."""
        first = messages = question(trajectory, start, stop, self.modes)
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
        """An answer, with the form enforced where the server can; the attempt is the seed, so that no request repeats."""
        limits: _Limits = {
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
        self.structured = False  # the server answers without the field, so it had refused the field
        return answer


def _with(trajectory: Demonstration, texts: dict[int, str], modes: Modes) -> Demonstration:
    """The trajectory with other completions at some steps."""

    def rewritten(node: Node, text: str) -> Node:
        parsed = parse(text, modes)
        return replace(node, text=text, mode=parsed.mode, reasoning=parsed.reasoning, well_formed=parsed.well_formed)

    tree = trajectory.tree
    nodes = [rewritten(node, texts[step]) if step in texts else node for step, node in enumerate(tree.nodes)]
    return replace(trajectory, tree=replace(tree, nodes=nodes))
