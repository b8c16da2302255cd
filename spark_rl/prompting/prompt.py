"""`Prompt`: writes the prompt of a step from the path of a tree, and reads completions.

Invariants
----------
* There is one prompt builder: demonstrations, cold start, rollouts and evaluation render the same state to the same
  token ids.
* `Prompt.parse` is the only way to read a completion: the fork criterion, the penalties and the statistics read the same
  `Parsed`. Only tagged answers are demonstrated and trained; `modes` names the tags.
* Every prompt has the whole task and the whole current observation. A prompt that is too long loses its oldest history,
  then the tail of its action list, and `Node.truncated` counts the lost lines.

The constant part comes first, so that prompts of trees share their heads. The context writes the path
(`contracts.Context`); `answers` has the text before the task and the parser of answers. An `Encoder` wraps a tokenizer's own
chat template; without an encoder (experts, servers) a prompt consists of messages only.
"""

from __future__ import annotations

from dataclasses import dataclass

from spark_rl.contracts import Context, Encoder
from spark_rl.errors import PromptTooLong, unknown_name
from spark_rl.prompting.answers import ANSWERS
from spark_rl.prompting.instructions import MODES, Modes, Style
from spark_rl.prompting.window import Window
from spark_rl.types import Parsed, Rendered, Situation, Tree

__all__ = ["Prompt"]


@dataclass(frozen=True)
class Prompt:
    """How prompts are written. The same value serves demonstrations, cold start, rollouts and evaluation."""

    context: Context = Window()
    """How much of the path a prompt shows, and in which form."""
    instructions: Style = "full"
    """`full` explains role, modes and answer format; `none`, for models trained from scratch, explains nothing. `react`
    asks for a thought and an action, `plain` for an action alone: both are for prompted baselines, which are not trained."""
    modes: Modes = "spark"
    """`spark`: the agent explores or thinks. `rlvmr`: it plans, explores, reflects or monitors, and sees its plan."""
    list_actions: bool = True
    """List the admissible actions in prompts."""
    limit: int = 2048
    """Most tokens of a prompt."""

    def __post_init__(self) -> None:
        if self.modes not in MODES:
            raise unknown_name("prompt.modes", self.modes, MODES)
        if self.instructions not in ANSWERS:
            raise unknown_name("prompt.instructions", self.instructions, ANSWERS)

    @property
    def tags(self) -> tuple[str, ...]:
        """The opening and closing tags of answers; a tokenizer has a token for each."""
        return tuple(tag for name in (*MODES[self.modes], "action") for tag in (f"<{name}>", f"</{name}>"))

    def parse(self, text: str) -> Parsed:
        """Read a completion in the form that the instructions ask for."""
        return ANSWERS[self.instructions].read(text, self.modes)

    def render(self, tree: Tree, node: int, encoder: Encoder | None) -> Rendered:
        """The prompt of the step that follows `node` (-1: the first step).

        The first of these attempts that fits the limit is taken: the whole prompt, then less and less history (halved each
        time, so that transcripts are seldom rewritten), then fewer and fewer actions.

        Raises:
            PromptTooLong: task and current observation alone exceed the limit.
        """
        situation = Situation(tree, tuple(tree.trajectory(node)), self._head(tree), self.list_actions)
        history, actions = self.context.steps(len(situation.path)), len(situation.actions())
        listed: int | None = None
        while True:
            rendered = self.context.write(situation, history=history, listed=listed, encoder=encoder)
            if rendered.ids is None or len(rendered.ids) <= self.limit:
                return rendered
            if history > 0:
                history //= 2
            elif actions > 0:
                actions = listed = actions // 2
            else:
                raise PromptTooLong(
                    f"prompt.limit is {self.limit} tokens, but task and observation of {tree.task.id} alone need "
                    f"{len(rendered.ids)}: raise prompt.limit (or use a model with a longer context)"
                )

    def _head(self, tree: Tree) -> str:
        task = f"Task: {tree.task.instruction}"
        instructions = ANSWERS[self.instructions].instructions(self.modes)
        return f"{instructions}\n\n{task}" if instructions else task
