"""Helpers of the commands that query a server: the file of its answers, and a preview of a prompt before any cost."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from spark_rl.contracts import World
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Message, Task, Tree

__all__ = ["answers_file", "show_messages", "show_prompt"]


def answers_file(out: Path | None, model: str) -> Path:
    """The default file for a server's answers: beside the output file, or under `runs` by the model's name."""
    if out is not None:
        return out.with_name(f"{out.stem}.answers.jsonl")
    return Path("runs") / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model).strip('-.') or 'model'}.answers.jsonl"


def show_prompt(world: World, task: Task, prompt: Prompt) -> None:
    """Print the prompt of a task's first step."""
    environment = world.make()
    try:
        first = environment.reset(task)
        tree = Tree(task, first.text, first.shown if prompt.list_actions else ())
        show_messages(prompt.render(tree, -1, None).messages)
    finally:
        environment.close()


def show_messages(messages: Iterable[Message]) -> None:
    """Print a conversation."""
    for message in messages:
        print(f"[{message['role']}]\n{message['content']}")
