"""From the path of a tree to a prompt, and from a completion to what it means.

Invariants
----------
* There is one prompt builder: demonstrations, cold start, rollouts and evaluation render the same state to the same
  token ids.
* There is one way to read a completion, `Prompt.parse`: the fork criterion, the penalties and the statistics read the same
  `Parsed`. `parse` is that of tagged answers, the only ones that are demonstrated and trained; which tags, `modes` says.
* Every prompt holds the task and the current observation whole. One that is too long loses its oldest history, then
  the tail of its action list, and says how much (`Node.truncated`).
* Under `Transcript` a step's prompt is its parent's prompt and completion plus new tokens, id for id, unless it was
  shortened; so keys and values can be kept.

What never changes comes first, so that trees share their prompts' heads. `Encoder` wraps a tokenizer's own chat
template; without one (experts, servers) only messages are built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, cast

from spark_rl.errors import PromptTooLong, UsageError, unknown_name
from spark_rl.types import Message, Mode, Parsed, Tree

__all__ = ["INSTRUCTIONS", "MODES", "Encoder", "Modes", "Prompt", "Rendered", "Transcript", "Window", "parse", "respond"]

_SPARK = """\
You are an expert agent in a text world. You are given a task, and at each step what you see and what you can do.

Before each action, reason in one short sentence, in exactly one of two modes:
- <explore>...</explore> when information is missing or the last result was not what you expected. Consider which places, items or actions could help, and choose which to try.
- <think>...</think> when things go as expected. Keep track of what is done and what comes next.

Then give one of the admissible actions inside <action>...</action>. Answer with one reasoning block and one action, and nothing else."""  # noqa: E501  prose

_RLVMR = """\
You are an expert agent in a text world. You are given a task, and at each step what you see and what you can do.

Before each action, reason in one short sentence, in exactly one of four modes:
- <planning>...</planning> at the start, and whenever the plan proves wrong or insufficient. Break the whole task down and list its steps: Step 1: ... Step 2: ...
- <explore>...</explore> when information is missing or the last result was not what you expected. Consider which places, items or actions could help, and choose which to try.
- <reflection>...</reflection> when an action failed, or the last ones led nowhere. Say why, and try something else.
- <monitor>...</monitor> when things go as expected. Keep track of the step of the plan that is under way and of what it needs next.

Then give one of the admissible actions inside <action>...</action>. Answer with one reasoning block and one action, and nothing else. Keep to your plan."""  # noqa: E501  prose

REACT = """\
You are an expert agent in a text world. You are given a task, and at each step what you see and what you can do.

At each step first think about what to do next, then give one of the admissible actions. Answer with two lines alone:
Thought: your reasoning in one short sentence
Action: the action"""

PLAIN = """\
You are an expert agent in a text world. You are given a task, and at each step what you see and what you can do.

At each step answer with one of the admissible actions and nothing else: no reasoning, no quotation marks."""

Style = Literal["full", "none", "react", "plain"]
Modes = Literal["spark", "rlvmr"]

MODES: dict[Modes, tuple[Mode, ...]] = {
    "spark": ("explore", "think"),
    "rlvmr": ("planning", "explore", "reflection", "monitor"),
}
"""The modes that an answer may reason in: SPARK's (arXiv 2601.20209) or RLVMR's (arXiv 2507.22844)."""

INSTRUCTIONS: dict[Modes, str] = {"spark": _SPARK, "rlvmr": _RLVMR}
"""What full instructions say, by modes."""
_HEADS: dict[Style, str] = {"none": "", "react": REACT, "plain": PLAIN}

_ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
# What a model imagines the world to answer is no part of its turn.
_IMAGINED = re.compile(r"^Observation\b", re.MULTILINE)
_ACT = re.compile(r"^Action:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_REACT = re.compile(r"\s*Thought:(?P<thought>.*?\S.*?)^Action:[^\n]*\S[^\n]*\s*", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class _Grammar:
    """What answers in some modes look like."""

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
    """Read a completion in SPARK's modes, or in RLVMR's; a tag of the other's is text like any other.

    Well-formed is one non-empty reasoning block, then one non-empty action block, white space aside. Whatever the
    form, the mode is that of the only non-empty reasoning block, if there is exactly one, and the action is the
    content of the only action block; without exactly one, the action is empty, which changes nothing in any world.
    """
    grammar = _GRAMMARS[modes]
    blocks = [(mode, body.strip()) for mode, body in grammar.reasoning.findall(text) if body.strip()]
    mode, reasoning = blocks[0] if len(blocks) == 1 else (None, "")
    actions = _ACTION.findall(text)
    action = actions[0].strip() if len(actions) == 1 and not grammar.tag.search(actions[0]) else ""
    strict = grammar.strict.fullmatch(text)
    well_formed = bool(strict and reasoning and action) and not grammar.tag.search(reasoning)
    return Parsed(cast("Mode | None", mode), reasoning, action, well_formed)


def _parse_react(text: str) -> Parsed:
    """Read `Thought: ...` and `Action: ...` (ReAct, arXiv 2210.03629), up to an observation that the model made up.

    Without exactly one line of action the action is empty.
    """
    own = _IMAGINED.split(text, maxsplit=1)[0]
    actions = _ACT.findall(own)
    action = actions[0] if len(actions) == 1 else ""
    strict = _REACT.fullmatch(own) if action else None
    return Parsed(None, strict["thought"].strip() if strict else "", action, strict is not None and own == text)


def _parse_plain(text: str) -> Parsed:
    """Read an answer of one line, which is the action; of several, the action is empty."""
    line = text.strip()
    action = "" if "\n" in line else line
    return Parsed(None, "", action, bool(action))


def respond(mode: Mode, reasoning: str, action: str) -> str:
    """The completion that `parse` reads back: what demonstrations are made of."""
    return f"<{mode}>{reasoning}</{mode}><action>{action}</action>"


@dataclass(frozen=True)
class Window:
    """Each step's prompt is written afresh and shows the last few (observation, action) pairs, as in the paper."""

    history: int = 5
    """How many past steps are shown."""


@dataclass(frozen=True)
class Transcript:
    """The whole episode as a growing conversation: each step appends, so that computation is shared along the tree."""

    actions: Literal["first", "changes", "all"] = "first"
    """At which turns admissible actions are listed: the first; the first, and then what is new and what is gone; all."""
    repeat_task: bool = False
    """Say the task again after every observation, where a small model finds it."""


@dataclass(frozen=True)
class Rendered:
    """A prompt: messages for those who read text, ids for those who read tokens."""

    messages: tuple[Message, ...]
    ids: tuple[int, ...] | None
    truncated: int
    """History steps and listed actions left out."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with a chat template, reduced to the three things the prompts need."""

    tokenizer: Any
    """A `transformers` tokenizer."""
    _turn: Callable[[str], tuple[int, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Turns repeat from step to step and tree to tree: most are answered from this cache.
        object.__setattr__(self, "_turn", lru_cache(maxsize=65536)(self._encode_turn))

    @property
    def end(self) -> int:
        """Id of the token that ends a turn."""
        return cast(int, self.tokenizer.eos_token_id)

    def conversation(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the messages through the chat template, up to where the assistant starts to answer."""
        return self._ids(self._render(messages, generate=True))

    def completion(self, text: str) -> tuple[int, ...]:
        """Ids of a whole answer, the end of the turn included: what a demonstration trains."""
        return (*self._ids(text), self.end)

    def extend(self, ids: Sequence[int], content: str) -> tuple[int, ...]:
        """Ids of a conversation `ids` (prompt and completion) continued by a user's turn `content`."""
        turn = self._turn(content)
        # A completion that was cut at the token limit lacks the end of its turn; the suffix then provides it.
        return (*ids, *(turn[1:] if ids and ids[-1] == turn[0] else turn))

    def _encode_turn(self, content: str) -> tuple[int, ...]:
        opening: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        before = self._render(opening, generate=False)
        after = self._render([*opening, {"role": "user", "content": content}], generate=True)
        end = self.tokenizer.decode([self.end])
        answer = before.rfind("b" + end) + 1
        if answer == 0 or not after.startswith(before[:answer]):
            raise UsageError(
                "prompt.context is Transcript, but this tokenizer's chat template rewrites earlier turns or does not close "
                "them with its end-of-sequence token; use --prompt.context Window"
            )
        return self._ids(after[answer:])

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        return cast(str, self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


@dataclass(frozen=True)
class Prompt:
    """How a step's prompt is written. The same value serves demonstrations, cold start, rollouts and evaluation."""

    context: Window | Transcript = Window()
    instructions: Style = "full"
    """`full` explains role, modes and answer format; a model that learns from nothing needs no such text (`none`). `react`
    asks for a thought and an action, `plain` for an action alone: baselines that are prompted, never trained."""
    modes: Modes = "spark"
    """`spark`: the agent explores or thinks. `rlvmr`: it plans, explores, reflects or monitors, and is shown its plan."""
    list_actions: bool = True
    """Show the admissible actions."""
    limit: int = 2048
    """Most tokens of a prompt."""

    def __post_init__(self) -> None:
        if self.modes not in MODES:
            raise unknown_name("prompt.modes", self.modes, MODES)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of an answer, each opened and closed: what a tokenizer keeps whole."""
        return tuple(tag for name in (*MODES[self.modes], "action") for tag in (f"<{name}>", f"</{name}>"))

    def parse(self, text: str) -> Parsed:
        """Read a completion in the form that the instructions ask for."""
        if self.instructions == "react":
            return _parse_react(text)
        return _parse_plain(text) if self.instructions == "plain" else parse(text, self.modes)

    def render(self, tree: Tree, node: int, encoder: Encoder | None) -> Rendered:
        """The prompt of the step that follows `node` (-1: the first step).

        Raises:
            PromptTooLong: task and current observation alone exceed the limit.
        """
        path = tree.trajectory(node)
        render = self._transcript if isinstance(self.context, Transcript) else self._window
        return render(tree, path, encoder)

    def _window(self, tree: Tree, path: list[int], encoder: Encoder | None) -> Rendered:
        assert isinstance(self.context, Window)
        shown = min(self.context.history, len(path))
        actions = self._actions(tree, path)

        def attempt(history: int, listed: int | None) -> Rendered:
            kept = actions[:listed]
            messages = (_user(self._step_text(tree, path, history, kept)),)
            ids = encoder.conversation(messages) if encoder else None
            return Rendered(messages, ids, shown - history + len(actions) - len(kept))

        return self._shorten(tree, attempt, shown, len(actions))

    def _transcript(self, tree: Tree, path: list[int], encoder: Encoder | None) -> Rendered:
        assert isinstance(self.context, Transcript)

        def attempt(history: int, listed: int | None) -> Rendered:
            messages, cut = self._dialogue(tree, path, history, listed)
            if encoder is None:
                ids = None
            elif path and history == len(path) and not cut:
                last = tree.nodes[path[-1]]
                ids = encoder.extend((*last.prompt, *last.completion), messages[-1]["content"])
            else:
                ids = encoder.conversation(messages)
            return Rendered(messages, ids, len(path) - history + cut)

        return self._shorten(tree, attempt, len(path), len(self._actions(tree, path)))

    def _shorten(self, tree: Tree, attempt: Callable[[int, int | None], Rendered], history: int, actions: int) -> Rendered:
        """The first attempt that fits: all, less history (halved, to rewrite transcripts seldom), then fewer actions."""
        listed: int | None = None
        rendered = attempt(history, listed)
        while rendered.ids is not None and len(rendered.ids) > self.limit:
            if history > 0:
                history //= 2
            elif actions > 0:
                actions = listed = actions // 2
            else:
                raise PromptTooLong(
                    f"prompt.limit is {self.limit} tokens, but task and observation of {tree.task.id} alone need "
                    f"{len(rendered.ids)}: raise prompt.limit (or use a model with a longer context)"
                )
            rendered = attempt(history, listed)
        return rendered

    def _actions(self, tree: Tree, path: list[int]) -> tuple[str, ...]:
        """What can be done at the end of a path."""
        if not self.list_actions:
            return ()
        return tree.nodes[path[-1]].actions if path else tree.actions

    def _head(self, tree: Tree) -> str:
        task = f"Task: {tree.task.instruction}"
        head = INSTRUCTIONS[self.modes] if self.instructions == "full" else _HEADS[self.instructions]
        return f"{head}\n\n{task}" if head else task

    def _step_text(self, tree: Tree, path: list[int], history: int, actions: Sequence[str]) -> str:
        parts = [self._head(tree)]
        if history:
            first = len(path) - history
            # Of what was thought only the plan outlives its step (RLVMR; without its modes there is none).
            plans = [tree.nodes[step].reasoning for step in path if tree.nodes[step].mode == "planning"]
            parts += [f"Your plan: {plan}" for plan in plans[-1:]]
            pairs = [
                f"[Observation {i + 1}: '{_before(tree, path, i)}', Action {i + 1}: '{tree.nodes[path[i]].action}']"
                for i in range(first, len(path))
            ]
            parts.append("\n".join([f"Steps taken: {len(path)}. The last {history}:", *pairs]))
        parts.append(f"Observation {len(path) + 1}: {_before(tree, path, len(path))}")
        return "\n".join([*parts, *([_ADMISSIBLE, *actions] if actions else [])])

    def _dialogue(self, tree: Tree, path: list[int], history: int, listed: int | None) -> tuple[tuple[Message, ...], int]:
        """The conversation of the last `history` answers, and how many lines of its last turn were left out."""
        start = len(path) - history
        messages: list[Message] = []
        cut = 0
        for i in range(start, len(path) + 1):
            heading, lines = self._listing(tree, path[:i], opening=i == start)
            if i == len(path):
                kept = lines[:listed]
                cut, lines = len(lines) - len(kept), kept
            parts = [
                *([self._head(tree)] if i == start else []),
                _before(tree, path, i),
                *([heading, *lines] if lines else []),
            ]
            if isinstance(self.context, Transcript) and self.context.repeat_task:
                parts.append(f"Task: {tree.task.instruction}")
            messages.append(_user("\n".join(parts)))
            if i < len(path):
                messages.append({"role": "assistant", "content": tree.nodes[path[i]].text})
        return tuple(messages), cut

    def _listing(self, tree: Tree, path: list[int], *, opening: bool) -> tuple[str, tuple[str, ...]]:
        """Heading and lines of the actions that the turn after a path of a transcript lists."""
        assert isinstance(self.context, Transcript)
        now = self._actions(tree, path)
        if opening or self.context.actions == "all":
            return _ADMISSIBLE, now
        if self.context.actions == "first":
            return "", ()
        before = self._actions(tree, path[:-1])
        new = (f"+ {action}" for action in now if action not in before)
        gone = (f"- {action}" for action in before if action not in now)
        return _CHANGED, (*new, *gone)


_ADMISSIBLE = "Admissible actions:"
_CHANGED = "Admissible actions, new (+) and gone (-):"


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _before(tree: Tree, path: list[int], i: int) -> str:
    """The observation that step i (from 0) of the path answered."""
    return tree.nodes[path[i - 1]].observation if i else tree.observation
