"""`spark-rl play`: watch a model play one task, step by step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from spark_rl.commands.base import Call, how_to_play, model_source, show
from spark_rl.common.running import run
from spark_rl.config.options import INLINE, take
from spark_rl.config.play import Play
from spark_rl.contracts import Policy
from spark_rl.environments.registry import find_task
from spark_rl.rollout.executors.in_process import open_executor
from spark_rl.types import Completion, Level, Parsed, Request, Split, Tree

__all__ = ["play"]


@dataclass(frozen=True, kw_only=True)
class _Play:
    """Watch a model play a task: its observations, reasoning and actions."""

    level: Level
    play: Play = field(metadata=INLINE)
    task: str = ""
    """Id of the task; by default the first of the level and split."""
    split: Split = "test"
    checkpoint: str = "last"
    """Checkpoint of a run: last, best, cold-start, or the number of an iteration."""
    pause: bool = True
    """On a terminal, wait for Enter after each step."""
    threads: int = 0
    """Threads of a matrix product; 0 measures."""


class _Aloud:
    """A wrapper that prints every observation and answer of another policy."""

    def __init__(self, policy: Policy, read: Callable[[str], Parsed], *, pause: bool) -> None:
        self.policy, self.read, self.pause = policy, read, pause

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Print and return the other policy's answers."""
        from rich.text import Text

        answers = await self.policy.sample(requests)
        for request, (completion, *_) in zip(requests, answers, strict=True):
            if not request.history:
                show(Text(f"Task: {request.task.instruction}", style="bold"))
            show(Text(f"\n{request.observation.text}"))
            answer = self.read(completion.text)
            if answer.mode and answer.action:
                colour = "magenta" if answer.mode == "explore" else "cyan"
                show(Text(f"{len(request.history) + 1:3} {answer.mode}: {answer.reasoning}", style=colour))
            else:
                show(Text(f"{len(request.history) + 1:3} not as asked: {completion.text!r}", style="red"))
            admissible = not request.observation.actions or answer.action in request.observation.actions
            show(Text(f"    > {answer.action}{'' if admissible else '   (not admissible)'}", style="bold"))
            if self.pause:
                input()
        return answers


def play(call: Call) -> int:
    """Grow a tree with one leaf and print each step; exit code 0 whether the task is solved or not."""
    recipe_name, argv = take(call.argv, "--recipe")
    name, call = replace(call, argv=argv).positional("a run directory, a model directory or a hub name")
    recipe, threads, call = how_to_play(call, name, recipe_name, run=True)
    level = recipe.evaluation.levels[0] if recipe.evaluation.levels else recipe.level
    options = call.options(_Play(level=level, play=Play.alone(recipe), threads=recipe.threads or threads))
    last = run(_watch(name, options, call)).nodes[-1]
    print(f"\n{last.observation}\n{'✓ Solved' if last.success else '✗ Not solved'} in {last.depth} steps.")
    return 0


async def _watch(name: str, options: _Play, call: Call) -> Tree:
    """Play the trajectory and print it step by step."""
    how, growth = options.play, options.play.single
    task = find_task(how.env, options.task) if options.task else how.env.tasks(options.level, options.split)[0]
    pause = options.pause and sys.stdin.isatty() and sys.stdout.isatty()
    async with AsyncExitStack() as stack:
        with call.watching() as watcher:
            watcher.phase("load the model")
            source = model_source(name, options.checkpoint, threads=options.threads)
            aloud = partial(_Aloud, read=how.prompt.parse, pause=pause)
            executor = await stack.enter_async_context(open_executor(how.engine, how.env, source, around=aloud))
        forest = await executor.grow([task], growth, seed=how.seed, iteration=0)
    return forest.trees[0]
