"""The instructions in prompts, the same for every context: the form of answers, the modes of reasoning, and the actions."""

from __future__ import annotations

from typing import Literal

from spark_rl.types import Mode

__all__ = ["ADMISSIBLE", "CHANGED", "INSTRUCTIONS", "MODES", "PLAIN", "REACT", "Modes", "Style"]

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
"""The modes of reasoning: SPARK's (arXiv 2601.20209) or RLVMR's (arXiv 2507.22844)."""

INSTRUCTIONS: dict[Modes, str] = {"spark": _SPARK, "rlvmr": _RLVMR}
"""The full instructions, by modes."""

ADMISSIBLE = "Admissible actions:"
"""The line above a list of actions."""
CHANGED = "Admissible actions, new (+) and gone (-):"
"""The line above the changes of a list of actions."""
