"""`spark-rl collect`: a teacher or your own model plays training tasks; wins and losses go to separate files."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spark_rl.commands.asking import answers_file, show_prompt
from spark_rl.commands.base import Call, how_to_play, model_source, recipe_of
from spark_rl.common.running import run
from spark_rl.config.options import INLINE, take
from spark_rl.config.play import Play
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Accounts, Growth, ModelSource
from spark_rl.data.played import Collected, draw, play_training
from spark_rl.engines.openai import Endpoint
from spark_rl.environments.registry import WORLDS, load_world
from spark_rl.errors import UsageError, at_least
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.executors.in_process import InProcess, open_executor
from spark_rl.types import Level, Sampling, Split, Task

if TYPE_CHECKING:
    from spark_rl.contracts import Watcher

__all__ = ["collect"]


@dataclass(frozen=True, kw_only=True)
class _Collect:
    """The options that a teacher and a model share."""

    level: Level
    """Level whose training split is played."""
    play: Play = field(metadata=INLINE)
    split: Split = "train"
    """Only `train`, because the trajectories are for training."""
    tasks: int = 0
    """Number of tasks, drawn at random; 0 takes all."""
    samples: int = 1
    """Episodes of each task."""
    count: int = 0
    """Stop after this many won episodes; 0 plays all."""
    batch: int
    """Tasks played at once."""
    out: Path = Path("played.jsonl")
    """File for won trajectories, one step per line."""
    failures: Path | None = None
    """File for lost trajectories, in the same format; by default OUT's name with `.failures.jsonl`."""

    def __post_init__(self) -> None:
        at_least("", self, tasks=0, samples=1, count=0, batch=1)
        if self.split != "train":
            raise UsageError(
                f"split is {self.split}: what is kept is there to be learnt, so only train may be played "
                "(`spark-rl eval` plays the others)"
            )
        if self.lost == self.out:
            raise UsageError(f"failures is {self.out}, which is also --out: give another file")

    @property
    def lost(self) -> Path:
        """File for lost trajectories."""
        return self.failures or self.out.with_name(f"{self.out.stem}.failures.jsonl")

    @property
    def read(self) -> Prompt:
        """Prompt settings for the player; the files always use `prompt`."""
        return self.play.prompt

    @property
    def growth(self) -> Growth:
        """The settings for growing one trajectory."""
        return replace(self.play.single, prompt=self.read)

    def drawn(self) -> list[Task]:
        """The tasks to play."""
        return draw(self.play.env.tasks(self.level, self.split), self.tasks, self.play.seed)


@dataclass(frozen=True, kw_only=True)
class _OfTeacher(_Collect):
    """Let a model behind a server play training tasks of a world; save wins and losses to separate files.

    `--recipe NAME` takes prompt, level, horizon and the world's options from a recipe.
    """

    endpoint: Endpoint = field(default=Endpoint(), metadata=INLINE)
    explain: bool = True
    """If the prompt has no instructions (`instructions` none), give the teacher the default prompt, and use the bare prompt
    only in the files. Set False for a model that was trained on bare prompts."""
    dry_run: bool = False
    """Print the prompt of the first step, and send no request."""

    @property
    def read(self) -> Prompt:
        """The teacher's prompt settings: a model not trained on bare prompts needs instructions for its answer."""
        prompt = self.play.prompt
        return Prompt(modes=prompt.modes) if self.explain and prompt.instructions == "none" else prompt


@dataclass(frozen=True, kw_only=True)
class _OfModel(_Collect):
    """Let a run's model, or another model, play training tasks; save wins and losses to separate files.

    A model that is no run needs `--recipe NAME` or `--env NAME` to name the world. `--teacher MODEL` uses a server instead
    of loading a model, and has other options.
    """

    checkpoint: str = "last"
    """Checkpoint of a run: last, best, cold-start, or the number of an iteration."""
    threads: int = 0
    """Threads of a matrix product; 0 measures."""


def collect(call: Call) -> int:
    """Write the two files and print a summary; exit code 1 when no episode was won."""
    teacher, argv = take(call.argv, "--teacher")
    recipe_name, argv = take(argv, "--recipe")
    call = replace(call, argv=argv)
    if teacher is not None:
        environment, call = call.positional("an environment", WORLDS)
        recipe = recipe_of(recipe_name, environment) if recipe_name else Recipe("prompted", load_world(environment))
        # A recipe's token limit is for its own tokenizer; the teacher's may need more tokens for the same sentence.
        how = Play.alone(recipe, max_tokens=Sampling().max_tokens)
        options = call.options(_OfTeacher(level=recipe.level, play=how, batch=recipe.evaluation.batch))
        options.play.refuse(how, "a teacher is asked by its server", "engine")
        if options.dry_run:
            show_prompt(options.play.env, options.drawn()[0], options.read)
            return 0
        name = teacher
    else:
        name, call = call.positional("an environment (with --teacher), a run directory, a model directory or a hub name")
        if name in WORLDS and not Path(name).exists():
            raise UsageError(f"collect {name} needs who plays: --teacher MODEL, or a run or model in the place of {name}")
        recipe, threads, call = how_to_play(call, name, recipe_name, run=True)
        how, batch = Play.alone(recipe), recipe.evaluation.batch
        options = call.options(_OfModel(level=recipe.level, play=how, batch=batch, threads=threads))
    with call.watching() as watcher:
        played = run(_play(name, options, watcher))
        for failure in played.failures:
            watcher.note(f"broke off: {failure}")
    return _save(played, options)


def _opened(options: _OfTeacher | _OfModel, name: str) -> AbstractAsyncContextManager[InProcess]:
    """The executor that grows the trajectories, with a server or with a model in this process."""
    if isinstance(options, _OfTeacher):
        endpoint = options.endpoint
        endpoint = replace(endpoint, answers=endpoint.answers or answers_file(options.out, name))
        return open_executor(endpoint, options.play.env, ModelSource(name=name))
    source = model_source(name, options.checkpoint, threads=options.threads)
    return open_executor(options.play.engine, options.play.env, source)


async def _play(name: str, options: _OfTeacher | _OfModel, watcher: Watcher) -> Collected:
    """Play the tasks with a teacher or a model."""
    from spark_rl.data.format import origin, prompt_version

    tasks = options.drawn()
    watcher.phase("load the model" if isinstance(options, _OfModel) else "connect")
    async with _opened(options, name) as executor:
        watcher.phase("collect", len(tasks) * options.samples)
        try:
            return await play_training(
                executor,
                tasks,
                options.growth,
                origin(options.play.env, options.level, "played", name, prompt_version(options.read)),
                temperature=options.play.temperature,
                seed=options.play.seed,
                samples=options.samples,
                count=options.count,
                batch=options.batch,
                advance=watcher.advance,
            )
        finally:
            if isinstance(executor.engine, Accounts):
                watcher.note(executor.engine.account())


def _save(played: Collected, options: _Collect) -> int:
    """Write the trajectories to their files and print the summary; returns the exit code."""
    from spark_rl.data.format import save

    parts: list[str] = []
    for outcome, demonstrations, file in (("won", played.won, options.out), ("lost", played.lost, options.lost)):
        if demonstrations:
            save(demonstrations, file, options.play.prompt)
        parts.append(f"{len(demonstrations)} {outcome}{f': {file}' if demonstrations else ''}")
    broken = f"; {len(played.failures)} broke off" if played.failures else ""
    short = f" (--count asked for {options.count})" if len(played.won) < options.count else ""
    print(f"{played.episodes} episodes, {'; '.join(parts)}{broken}{short}")
    return 0 if played.won else 1
