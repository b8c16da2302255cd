"""`spark-rl collect`: a teacher or a model of one's own plays training tasks; wins and losses go to a file each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spark_rl.commands.asking import answers_file, show_prompt
from spark_rl.commands.base import Call, how_to_play, load_weights, recipe_of
from spark_rl.config.options import INLINE, take
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Growth, World
from spark_rl.data.played import Collected, draw, play_training
from spark_rl.engines.openai import Endpoint, OpenAIPolicy, connect
from spark_rl.environments.registry import WORLDS, load_world
from spark_rl.errors import UsageError, at_least
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Level, Sampling, Split, Task, TreeShape

if TYPE_CHECKING:
    from spark_rl.contracts import Watcher


__all__ = ["collect"]


@dataclass(frozen=True, kw_only=True)
class _Collect:
    """What both who can play have in common."""

    level: Level
    """Level whose training split is played."""
    temperature: float
    """0 means greedy."""
    env: World
    prompt: Prompt
    horizon: int
    """Most steps of a trajectory."""
    max_tokens: int
    """Most tokens of a completion."""
    split: Split = "train"
    """Only `train`: what is kept is there to be learnt."""
    tasks: int = 0
    """Only so many tasks, drawn at random; 0 takes all."""
    samples: int = 1
    """Episodes of each task."""
    count: int = 0
    """Stop when so many are won; 0 plays all."""
    batch: int
    """Tasks played at once."""
    seed: int = 0
    """Of the draw and the samples."""
    out: Path = Path("played.jsonl")
    """File for what is won, one step a line."""
    failures: Path | None = None
    """File for what is lost, in the same format; by default OUT's name with `.failures.jsonl`."""

    def __post_init__(self) -> None:
        at_least("", self, temperature=0, tasks=0, samples=1, count=0, batch=1)
        if self.split != "train":
            raise UsageError(
                f"split is {self.split}: what is kept is there to be learnt, so only train may be played "
                "(`spark-rl eval` plays the others)"
            )
        if self.lost == self.out:
            raise UsageError(f"failures is {self.out}, which is also --out: give another file")

    @property
    def lost(self) -> Path:
        """File for what is lost."""
        return self.failures or self.out.with_name(f"{self.out.stem}.failures.jsonl")

    @property
    def read(self) -> Prompt:
        """What the player reads; files are rendered by `prompt` in any case."""
        return self.prompt

    @property
    def growth(self) -> Growth:
        """How the tasks are played."""
        from spark_rl.branching.chains import Chains

        shape = TreeShape(budget=1, roots=1, horizon=self.horizon)
        return Growth(shape, Chains(), self.read, Sampling(self.temperature, self.max_tokens))

    def drawn(self) -> list[Task]:
        """The tasks to play."""
        return draw(self.env.tasks(self.level, self.split), self.tasks, self.seed)


@dataclass(frozen=True, kw_only=True)
class _OfTeacher(_Collect):
    """Let a model behind a server play training tasks of a world, and keep what it wins and, apart, what it loses.

    `--recipe NAME` takes prompt, level, horizon and the world's options from a recipe.
    """

    endpoint: Endpoint = field(default=Endpoint(), metadata=INLINE)
    explain: bool = True
    """Where the prompt explains nothing (`instructions` none), have the teacher read the default one, and render only the
    files so; False for a model that was trained on such prompts."""
    dry_run: bool = False
    """Print the prompt of the first step, and ask nobody."""

    @property
    def read(self) -> Prompt:
        """A model that was never trained on bare prompts has to be told what to answer."""
        return Prompt(modes=self.prompt.modes) if self.explain and self.prompt.instructions == "none" else self.prompt


@dataclass(frozen=True, kw_only=True)
class _OfModel(_Collect):
    """Let a run's model, or another one, play training tasks, and keep what it wins and, apart, what it loses.

    What is no run needs `--recipe NAME` or `--env NAME`, which say what is played. `--teacher MODEL` asks a server instead,
    and takes other options.
    """

    checkpoint: str = "last"
    """Of a run: last, best, cold-start, or the number of an iteration."""
    cache_gb: float = 2.0
    """Most memory of the keys and values kept between steps."""
    threads: int = 0
    """Threads of a matrix product; 0 measures."""


def collect(call: Call) -> int:
    """Write two files and say what is in them; exit code 1 when nothing was won."""
    teacher, argv = take(call.argv, "--teacher")
    recipe_name, argv = take(argv, "--recipe")
    call = replace(call, argv=argv)
    if teacher is not None:
        environment, call = call.positional("an environment", WORLDS)
        recipe = recipe_of(recipe_name, environment) if recipe_name else Recipe("prompted", load_world(environment))
        # A recipe counts in the tokens of its own model, of which a sentence may take fewer.
        settings: dict[str, Any] = {**_settings(recipe), "max_tokens": Sampling().max_tokens}
        options = call.options(_OfTeacher(**settings))
        if options.dry_run:
            show_prompt(options.env, options.drawn()[0], options.read)
            return 0
        play = partial(_ask, teacher, options)
    else:
        name, call = call.positional("an environment (with --teacher), a run directory, a model directory or a hub name")
        if name in WORLDS and not Path(name).exists():
            raise UsageError(f"collect {name} needs who plays: --teacher MODEL, or a run or model in the place of {name}")
        recipe, threads, call = how_to_play(call, name, recipe_name, run=True)
        options = call.options(_OfModel(**_settings(recipe), cache_gb=recipe.engine.cache_gb, threads=threads))
        play = partial(_load_and_play, name, options)
    with call.watching() as watcher:
        found = play(watcher)
        for failure in found.failures:
            watcher.note(f"broke off: {failure}")
    return _keep(found, options)


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Where the options of `_Collect` start."""
    return {
        "level": recipe.level,
        "temperature": recipe.evaluation.temperature,
        "env": recipe.env,
        "prompt": recipe.prompt,
        "horizon": recipe.tree.horizon,
        "max_tokens": recipe.sampling.max_tokens,
        "batch": recipe.evaluation.batch,
        "seed": recipe.seed,
    }


def _ask(teacher: str, options: _OfTeacher, watcher: Watcher) -> Collected:
    """Play with a model behind a server."""
    from spark_rl.rollout.playing import WithPolicy

    async def play() -> Collected:
        async with connect(teacher, options.endpoint, answers_file(options.out, teacher)) as server:
            try:
                return await _play(WithPolicy(OpenAIPolicy(server), options.env), teacher, options, watcher)
            finally:
                watcher.note(server.usage.line(options.endpoint))

    return asyncio.run(play())


def _load_and_play(name: str, options: _OfModel, watcher: Watcher) -> Collected:
    """Play with a model in this process."""
    watcher.phase("load the model")
    from spark_rl.rollout.executors.in_process import InProcess

    model, tokenizer = load_weights(name, options.checkpoint, threads=options.threads)
    executor = InProcess(model, tokenizer, options.env, cache_gb=options.cache_gb)
    return asyncio.run(_play(executor, name, options, watcher))


async def _play(executor: Any, author: str, options: _Collect, watcher: Watcher) -> Collected:
    from spark_rl.data.format import origin, prompt_version

    tasks = options.drawn()
    watcher.phase("collect", len(tasks) * options.samples)
    return await play_training(
        executor,
        tasks,
        options.growth,
        origin(options.env, options.level, "played", author, prompt_version(options.read)),
        temperature=options.temperature,
        seed=options.seed,
        samples=options.samples,
        count=options.count,
        batch=options.batch,
        advance=watcher.advance,
    )


def _keep(found: Collected, options: _Collect) -> int:
    from spark_rl.data.format import save

    said: list[str] = []
    kept: Sequence[tuple[str, Sequence[Any], Path]] = (("won", found.won, options.out), ("lost", found.lost, options.lost))
    for what, some, file in kept:
        if some:
            save(some, file, options.prompt)
        said.append(f"{len(some)} {what}{f': {file}' if some else ''}")
    broken = f"; {len(found.failures)} broke off" if found.failures else ""
    short = f" (--count asked for {options.count})" if len(found.won) < options.count else ""
    print(f"{found.episodes} episodes, {'; '.join(said)}{broken}{short}")
    return 0 if found.won else 1
