"""What the commands that ask a server share: where its answers are kept, and a prompt to look at before anything is paid."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from spark_rl.contracts import World
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Message, Task, Tree

__all__ = ["answers_file", "show_messages", "show_prompt"]


def answers_file(out: Path | None, model: str) -> Path:
    """Where answers are kept by default: beside what is written, else under `runs`, by the model's name."""
    if out is not None:
        return out.with_name(f"{out.stem}.answers.jsonl")
    return Path("runs") / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model).strip('-.') or 'model'}.answers.jsonl"


def show_prompt(world: World, task: Task, prompt: Prompt) -> None:
    """Print what a policy would read at the first step of a task."""
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
