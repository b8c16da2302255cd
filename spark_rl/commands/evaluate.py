"""`spark-rl eval`: play every task of a level exactly once, with a run's model, any other, or one behind a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spark_rl.branching.chains import Chains
from spark_rl.commands.asking import answers_file, show_prompt
from spark_rl.commands.base import Call, holds_run, load_weights
from spark_rl.data.leaks import refuse_held_out
from spark_rl.environments.base import World, load_world
from spark_rl.errors import UsageError, unknown_name
from spark_rl.files import write_json
from spark_rl.growth import Growth, Sampling, TreeShape
from spark_rl.options import INLINE, take
from spark_rl.policies.openai import Endpoint, OpenAIPolicy, connect
from spark_rl.progress import Watcher
from spark_rl.prompting import Prompt
from spark_rl.recipe import Recipe
from spark_rl.recipes import load_recipe
from spark_rl.seeding import derive
from spark_rl.types import Level, Split, Task

__all__ = ["evaluate"]

POLICIES = ("model", "openai")


@dataclass(frozen=True, kw_only=True)
class _Evaluate:
    """What all that can be evaluated have in common."""

    level: tuple[Level, ...]
    """Which levels."""
    temperature: float
    """0 means greedy."""
    env: World
    prompt: Prompt
    horizon: int
    """Most steps of a trajectory."""
    max_tokens: int
    """Most tokens of a completion."""
    split: Split = "test"
    """Which tasks of the level."""
    tasks: int = 0
    """Only the first so many tasks of each level; 0 takes all."""
    seed: int = 0
    """Of the samples."""
    batch: int = 64
    """Tasks played at once."""
    out: Path | None = None
    """JSON file to write as well."""

    @property
    def growth(self) -> Growth:
        """How the tasks are played."""
        shape = TreeShape(budget=1, roots=1, horizon=self.horizon)
        return Growth(shape, Chains(), self.prompt, Sampling(self.temperature, self.max_tokens))

    def chosen(self) -> dict[Level, list[Task]]:
        """The tasks by level."""
        return {level: list(self.env.tasks(level, self.split)[: self.tasks or None]) for level in self.level}


@dataclass(frozen=True, kw_only=True)
class _OfModel(_Evaluate):
    """Play every task of each level exactly once and report success with its fraction and interval.

    What is no run needs `--recipe NAME` or `--env NAME`, which say what is played. `--policy openai` asks a server instead
    of loading a model, and takes other options.
    """

    checkpoint: str = "last"
    """Of a run: last, best, cold-start, or the number of an iteration."""
    cache_gb: float = 2.0
    """Most memory of the keys and values kept between steps."""
    threads: int = 0
    """Threads of a matrix product; 0 measures."""


@dataclass(frozen=True, kw_only=True)
class _OfServer(_Evaluate):
    """Let a model behind a server play every task of each level exactly once and report success with its interval.

    `--recipe NAME` or `--env NAME` say what is played. `--prompt.instructions react` (or plain) makes a prompted baseline.
    """

    endpoint: Endpoint = field(default=Endpoint(), metadata=INLINE)
    dry_run: bool = False
    """Print the prompt of the first step, and ask nobody."""


def evaluate(call: Call) -> int:
    """Print a table, a row a level; write the numbers as JSON when asked to."""
    policy, argv = take(call.argv, "--policy")
    recipe_name, argv = take(argv, "--recipe")
    if policy is not None and policy not in POLICIES:
        raise unknown_name("policy", policy, POLICIES)
    name, call = replace(call, argv=argv).positional("a run directory, a model directory or a hub name")
    recipe, threads, call = _recipe(call, name, recipe_name, run=policy != "openai")
    common = _Evaluate(
        level=recipe.evaluation.levels,
        temperature=recipe.evaluation.temperature,
        env=recipe.env,
        prompt=recipe.prompt,
        horizon=recipe.tree.horizon,
        max_tokens=recipe.sampling.max_tokens,
        seed=recipe.seed,
        batch=recipe.evaluation.batch,
    )
    settings = vars(common)
    with call.watching() as watcher:
        if policy == "openai":
            asked = call.options(_OfServer(**settings))
            if asked.dry_run:
                tasks = next(iter(asked.chosen().values()))
                show_prompt(asked.env, tasks[0], asked.prompt)
                return 0
            results = asyncio.run(_ask(name, asked, watcher))
            out = asked.out
        else:
            options = call.options(_OfModel(**settings, cache_gb=recipe.cache_gb, threads=threads))
            if holds_run(Path(name)) and options.split != "train":
                refuse_held_out(call.open_run(name), options.level, options.env)
            results = asyncio.run(_load_and_play(name, options, watcher))
            out = options.out
    _tell(results)
    if out:
        write_json(out, results)
    return 0


def _tell(results: Mapping[str, Any]) -> None:
    from spark_rl.evaluate import averages, by_kind, markdown

    print(markdown(results))
    for table in (averages(results), by_kind(results)):
        if table:
            print(f"\n{table}")


def _recipe(call: Call, name: str, recipe_name: str | None, *, run: bool) -> tuple[Recipe, int, Call]:
    """What says how to play, the thread count, and the rest of the call: a named recipe, the run's own, or a world alone."""
    if recipe_name is not None:
        return load_recipe(recipe_name), 0, call
    if run and holds_run(Path(name)):
        opened = call.open_run(name)
        return opened.recipe, opened.recipe.threads or opened.settings.get("threads", 0), call
    world, argv = take(call.argv, "--env")
    if world is not None:
        return Recipe("prompted", load_world(world)), 0, replace(call, argv=argv)
    if any(word in ("-h", "--help") for word in call.argv):
        return Recipe("prompted", load_world("household")), 0, call
    raise UsageError(
        f'"{name}" is no run directory, so what to play is not known: add --recipe NAME, or --env NAME and fields'
    )


async def _load_and_play(name: str, options: _OfModel, watcher: Watcher) -> dict[str, Any]:
    """Play with a model in this process."""
    tasks = options.chosen()
    watcher.phase("load the model")
    from spark_rl.executor import InProcess

    model, tokenizer = load_weights(name, options.checkpoint, threads=options.threads)
    return await _play(InProcess(model, tokenizer, options.env, cache_gb=options.cache_gb), tasks, options, watcher)


async def _ask(name: str, options: _OfServer, watcher: Watcher) -> dict[str, Any]:
    """Play with a model behind a server."""
    from spark_rl.evaluate import WithPolicy

    tasks = options.chosen()
    async with connect(name, options.endpoint, answers_file(options.out, name)) as server:
        try:
            return await _play(WithPolicy(OpenAIPolicy(server), options.env), tasks, options, watcher)
        finally:
            watcher.note(server.usage.line(options.endpoint))


async def _play(executor: Any, tasks: Mapping[Level, list[Task]], options: _Evaluate, watcher: Watcher) -> dict[str, Any]:
    from spark_rl.evaluate import evaluate as play

    results: dict[str, Any] = {}
    for level, chosen in tasks.items():
        watcher.phase(f"evaluate {level}", len(chosen))
        results[level] = await play(
            executor,
            chosen,
            options.growth,
            temperature=options.temperature,
            seed=derive(options.seed, "evaluation"),
            batch=options.batch,
            advance=watcher.advance,
        )
    return results
