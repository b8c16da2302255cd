"""`spark-rl play`: watch a model play one task, step by step."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spark_rl.commands.base import Call, how_to_play, load_weights, show
from spark_rl.config.options import take
from spark_rl.contracts import Growth, Policy, World
from spark_rl.environments.registry import find_task
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Completion, Level, Parsed, Request, Sampling, Split, TreeShape

__all__ = ["play"]


@dataclass(frozen=True)
class _Play:
    """Watch a model play a task: what it sees, thinks and does."""

    level: Level
    temperature: float
    """0 means greedy."""
    env: World
    prompt: Prompt
    horizon: int
    """Most steps."""
    max_tokens: int
    """Most tokens of a completion."""
    task: str = ""
    """Id of the task; by default the first of the level and split."""
    split: Split = "test"
    checkpoint: str = "last"
    """Of a run: last, best, cold-start, or the number of an iteration."""
    seed: int = 0
    """Of the samples."""
    pause: bool = True
    """On a terminal, wait for Enter after each step."""
    threads: int = 0
    """Threads of a matrix product; 0 measures."""


class _Aloud:
    """Another policy, with everything told that it sees and says."""

    def __init__(self, policy: Policy, read: Callable[[str], Parsed], *, pause: bool) -> None:
        self.policy, self.read, self.pause = policy, read, pause
        self.spent = policy.spent

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The other policy's answers."""
        from rich.text import Text

        answers = await self.policy.sample(requests)
        for request, (completion, *_) in zip(requests, answers, strict=True):
            if not request.history:
                show(Text(f"Task: {request.task.instruction}", style="bold"))
            show(Text(f"\n{request.observation.text}"))
            said = self.read(completion.text)
            if said.mode and said.action:
                colour = "magenta" if said.mode == "explore" else "cyan"
                show(Text(f"{len(request.history) + 1:3} {said.mode}: {said.reasoning}", style=colour))
            else:
                show(Text(f"{len(request.history) + 1:3} not as asked: {completion.text!r}", style="red"))
            admissible = not request.observation.actions or said.action in request.observation.actions
            show(Text(f"    > {said.action}{'' if admissible else '   (not admissible)'}", style="bold"))
            if self.pause:
                input()
        return answers


def play(call: Call) -> int:
    """A tree with one leaf, told as it grows; exit code 0 whether it is won or not."""
    from spark_rl.branching.chains import Chains
    from spark_rl.rollout.grow import grow_tree

    recipe_name, argv = take(call.argv, "--recipe")
    name, call = replace(call, argv=argv).positional("a run directory, a model directory or a hub name")
    recipe, threads, call = how_to_play(call, name, recipe_name, run=True)
    options = call.options(
        _Play(
            level=recipe.evaluation.levels[0] if recipe.evaluation.levels else recipe.level,
            temperature=recipe.evaluation.temperature,
            env=recipe.env,
            prompt=recipe.prompt,
            horizon=recipe.tree.horizon,
            max_tokens=recipe.sampling.max_tokens,
            seed=recipe.seed,
            threads=recipe.threads or threads,
        )
    )
    task = find_task(options.env, options.task) if options.task else options.env.tasks(options.level, options.split)[0]
    with call.watching() as watcher:
        watcher.phase("load the model")
        from spark_rl.engines.local.engine import LocalPolicy

        model, tokenizer = load_weights(name, options.checkpoint, threads=options.threads)
    pause = options.pause and sys.stdin.isatty() and sys.stdout.isatty()
    policy: Any = _Aloud(LocalPolicy(model, tokenizer), options.prompt.parse, pause=pause)
    sampling = Sampling(options.temperature, options.max_tokens)
    growth = Growth(TreeShape(budget=1, roots=1, horizon=options.horizon), Chains(), options.prompt, sampling)
    tree = asyncio.run(grow_tree(task, options.env, policy, growth, seed=options.seed, encoder=ChatEncoder(tokenizer)))
    last = tree.nodes[-1]
    print(f"\n{last.observation}\n{'✓ Solved' if last.success else '✗ Not solved'} in {last.depth} steps.")
    return 0
