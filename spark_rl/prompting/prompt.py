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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spark_rl.contracts import Encoder
from spark_rl.errors import PromptTooLong, unknown_name
from spark_rl.prompting.instructions import HEADS, INSTRUCTIONS, MODES, Modes, Style
from spark_rl.prompting.parsing import parse, parse_plain, parse_react
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.types import Message, Parsed, Rendered, Tree

__all__ = ["Prompt"]


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
            return parse_react(text)
        return parse_plain(text) if self.instructions == "plain" else parse(text, self.modes)

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
        head = INSTRUCTIONS[self.modes] if self.instructions == "full" else HEADS[self.instructions]
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
