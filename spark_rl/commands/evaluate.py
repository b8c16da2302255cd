"""`spark-rl eval`: play every task of a level, once or several times, with your own model or a model behind a server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from spark_rl.branching.chains import Chains
from spark_rl.commands.asking import answers_file, show_prompt
from spark_rl.commands.base import Call, holds_run, how_to_play, model_source
from spark_rl.commands.ranks import launch_ranks, working
from spark_rl.common.files import write_bytes, write_json
from spark_rl.common.running import run
from spark_rl.common.seeding import derive
from spark_rl.config.codec import encode
from spark_rl.config.options import INLINE, take
from spark_rl.config.play import Play
from spark_rl.config.recipe import Scale
from spark_rl.contracts import Accounts, Grows, ModelSource, PlansOnly, Policy, Ranks, Watcher, WithWidth
from spark_rl.data.leaks import refuse_held_out
from spark_rl.engines.openai import Endpoint
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.evaluation.episodes import Folder, Played, Shard, open_folder
from spark_rl.evaluation.lookahead import CHOICES, Choose
from spark_rl.evaluation.results import LevelResult, Levels, conclude, levels_to_json
from spark_rl.policies.voting import Voting
from spark_rl.rollout.executors.in_process import InProcess, open_executor
from spark_rl.scale.group import first
from spark_rl.types import Level, Split, Task

__all__ = ["evaluate"]

POLICIES = ("branching", "model", "openai")
Results = dict[str, LevelResult]


@dataclass(frozen=True, kw_only=True)
class _Evaluate:
    """The options that a model and a server share."""

    level: tuple[Level, ...]
    """Levels to evaluate."""
    play: Play = field(metadata=INLINE)
    split: Split = "test"
    """Split of the tasks."""
    tasks: int = 0
    """Number of tasks of each level, from the first on; 0 takes all."""
    samples: int = 1
    """Episodes of each task."""
    pass_at: tuple[int, ...] = ()
    """Values of k for the unbiased Pass@k, none above `samples`."""
    choose: Literal["none", "majority", "likelihood"] = "none"
    """Branch, and choose by a majority vote on actions or by the mean log-probability per token; none: one trajectory."""
    among: Literal["episodes", "steps"] = "episodes"
    """The candidates: trajectories of a tree, each played to its end in a fork of the environment; or completions at a step
    where the agent explores, of which only one is executed, without a fork."""
    batch: int = 64
    """Tasks played at once."""
    shard: str = ""
    """A share of the batches, such as 2/4. All shards use one `out`; evaluate there without --shard for the whole."""
    out: Path | None = None
    """Folder for episodes, numbers and tables; an interrupted evaluation continues from it. A name that ends in .json is a
    file for the numbers alone."""

    def __post_init__(self) -> None:
        at_least("", self, tasks=0, samples=1, batch=1)
        if wrong := [k for k in self.pass_at if not 1 <= k <= self.samples]:
            raise UsageError(f"pass_at is {wrong[0]}, and samples {self.samples}: k must be from 1 to samples")
        if self.choose != "none" and self.play.temperature == 0:
            raise UsageError("temperature is 0, at which all branches are the same: raise it, or leave --choose out")
        if self.choose != "none" and self.among == "steps" and not isinstance(self.play.branching, WithWidth):
            raise UsageError(
                "--among steps asks as often as --branching.width says: choose a rule that has one (explore-tag)"
            )
        if self.part and self.folder is None:
            raise UsageError("--shard needs --out DIR, the folder where the shards come together")

    @property
    def folder(self) -> Path | None:
        """The folder of episodes, if any."""
        return None if self.out is None or self.out.suffix == ".json" else self.out

    @property
    def part(self) -> Shard | None:
        """The share of the batches to play; None plays all."""
        return Shard.read(self.shard) if self.shard else None

    @property
    def chooses(self) -> Choose | None:
        """The rule that chooses one leaf of a tree; None without trees."""
        return CHOICES[self.choose] if self.choose != "none" and self.among == "episodes" else None

    def around(self, policy: Policy) -> Policy:
        """The policy that acts: the given policy, or a vote among its answers."""
        rule = self.play.branching
        if self.choose == "none" or self.among == "episodes" or not isinstance(rule, WithWidth):
            return policy
        return Voting(policy, rule.width, self.choose, self.play.prompt.parse)

    def chosen(self) -> dict[Level, list[Task]]:
        """The tasks of each level."""
        return {level: list(self.play.env.tasks(level, self.split)[: self.tasks or None]) for level in self.level}

    def identity(self, model: str) -> dict[str, object]:
        """The settings that determine an episode; all episodes of a folder share them."""
        names = ["env", "prompt", "temperature", "max_tokens", "seed"]
        names += ["branching", "tree"] if self.choose != "none" else []
        settings = {name: encode(getattr(self.play, name)) for name in names}
        settings |= {"choose": self.choose, "among": self.among} if self.choose != "none" else {}
        return {"model": model, "horizon": self.play.tree.horizon, "split": self.split, **settings}


@dataclass(frozen=True, kw_only=True)
class _OfModel(_Evaluate):
    """Play every task of each level exactly `--samples` times and report success with its fraction and interval.

    A model that is no run needs `--recipe NAME` or `--env NAME` to name the world. `--policy branching` is `--choose
    majority`: the agent branches, and one of the branches counts. `--policy openai` uses a server instead of loading a
    model, and has other options.
    """

    checkpoint: str = "last"
    """Checkpoint of a run: last, best, cold-start, or the number of an iteration."""
    threads: int = 0
    """Threads of a matrix product; 0 measures."""
    scale: Scale


@dataclass(frozen=True, kw_only=True)
class _OfServer(_Evaluate):
    """Let a model behind a server play every task of each level exactly `--samples` times and report success.

    `--recipe NAME` or `--env NAME` names the world. `--prompt.instructions react` (or plain) makes a prompted baseline.
    """

    endpoint: Endpoint = field(default=Endpoint(), metadata=INLINE)
    dry_run: bool = False
    """Print the prompt of the first step, and send no request."""


def evaluate(call: Call) -> int:
    """Print a table with one row per level; write the numbers if --out is given."""
    words = ["eval", *call.argv]
    policy, argv = take(call.argv, "--policy")
    recipe_name, argv = take(argv, "--recipe")
    if policy is not None and policy not in POLICIES:
        raise unknown_name("policy", policy, POLICIES)
    name, call = replace(call, argv=argv).positional("a run directory, a model directory or a hub name")
    recipe, threads, call = how_to_play(call, name, recipe_name, run=policy != "openai")
    if policy == "branching" and not any(word.startswith("--choose") for word in call.argv):
        call = replace(call, argv=[*call.argv, "--choose", "majority"])
    how = Play.evaluating(recipe)
    level, batch = recipe.evaluation.levels, recipe.evaluation.batch
    if policy == "openai":
        options = call.options(_OfServer(level=level, play=how, batch=batch))
        options.play.refuse(how, "the model is behind a server", "engine")
        if options.dry_run:
            tasks = next(iter(options.chosen().values()))
            show_prompt(options.play.env, tasks[0], options.play.prompt)
            return 0
    else:
        options = call.options(_OfModel(level=level, play=how, batch=batch, threads=threads, scale=Scale()))
        if holds_run(Path(name)) and options.split != "train":
            refuse_held_out(call.open_run(name), options.level, options.play.env)
    _refuse_rule(options, requested=policy == "branching")
    ranks = options.scale.ranks if isinstance(options, _OfModel) else 1
    if launch_ranks(call, words, ranks, "the same command"):
        return 0
    with working(call, "auto") as (ranks, watcher):
        results = run(_evaluated(name, options, watcher, ranks))
    if results is not None and first():
        _report(results, options)
    return 0


def _refuse_rule(options: _Evaluate, *, requested: bool) -> None:
    """Refuse a branching rule that forks only after outcomes are known.

    Raises:
        UsageError: branching was requested, but the rule would never fork during an evaluation.
    """
    rule = options.play.branching
    if options.choose == "none" or options.among == "steps" or not (isinstance(rule, PlansOnly) and rule.plans_only):
        return
    if requested or not isinstance(rule, Chains):
        raise UsageError(
            f"branching is {type(rule).__name__}, which forks only after outcomes are known, or never; an agent that is "
            "evaluated does not know them: choose another rule, such as --branching explore-tag"
        )


async def _evaluated(name: str, options: _OfModel | _OfServer, watcher: Watcher, ranks: Ranks) -> Results | None:
    """Play with a server or with a model in this process."""
    tasks = options.chosen()
    with _episodes(options, _model_label(name, options), ranks) as folder:
        watcher.phase("load the model" if isinstance(options, _OfModel) else "connect")
        async with _opened(name, options, ranks) as executor:
            try:
                return await _play(executor, tasks, options, watcher, folder, ranks)
            finally:
                if isinstance(executor.engine, Accounts):
                    watcher.note(executor.engine.account())


def _model_label(name: str, options: _OfModel | _OfServer) -> str:
    """The model's name in the settings of an evaluation's folder."""
    if isinstance(options, _OfServer):
        return f"{name} at {options.endpoint.where}"
    place = Path(model_source(name, options.checkpoint).name)
    if options.folder and place.exists():  # relative path, so that both can be moved together
        return os.path.relpath(place.resolve(), options.folder.resolve())
    return name


def _opened(name: str, options: _OfModel | _OfServer, ranks: Ranks) -> AbstractAsyncContextManager[InProcess]:
    """The executor that grows the episodes."""
    how = options.play
    if isinstance(options, _OfServer):
        # Each shard is its own process, and a file of answers belongs to one process.
        out = options.out.with_name(options.out.name + options.shard.replace("/", "-of-")) if options.out else None
        endpoint = replace(options.endpoint, answers=options.endpoint.answers or answers_file(out, name))
        return open_executor(endpoint, how.env, ModelSource(name=name), around=options.around)
    source = model_source(name, options.checkpoint, threads=options.threads)
    return open_executor(how.engine, how.env, source, around=options.around, ranks=ranks)


@contextlib.contextmanager
def _episodes(options: _Evaluate, model: str, ranks: Ranks) -> Generator[Folder | None]:
    """Open the folder of episodes, if any; of several ranks the first writes."""
    if options.folder is None:
        yield None
    elif ranks.rank:
        yield Folder(options.folder, None)
    else:
        with open_folder(options.folder, options.identity(model), options.part) as folder:
            yield folder


async def _play(
    executor: Grows,
    tasks: Mapping[Level, list[Task]],
    options: _Evaluate,
    watcher: Watcher,
    folder: Folder | None,
    ranks: Ranks,
) -> Results | None:
    """The results of each level; None while episodes of other shards are missing."""
    from spark_rl.evaluation.play import play

    results: Results = {}
    for level, chosen in tasks.items():
        ranks.gather(None)  # what the first has written
        before = folder.level(level) if folder else Played()
        ranks.gather(None)  # all have read, and it may write again
        wanted = {(task.id, sample) for task in chosen for sample in range(options.samples)}
        watcher.phase(f"evaluate {level}", len(wanted), len(wanted & before.episodes.keys()))
        played = await play(
            executor,
            chosen,
            options.play.growth,
            temperature=options.play.temperature,
            seed=derive(options.play.seed, "evaluation"),
            samples=options.samples,
            batch=options.batch,
            choose=options.chooses,
            played=before,
            shard=options.part,
            advance=watcher.advance,
        )
        if folder and options.part:
            played = folder.level(level)  # other shards have played episodes meanwhile
            if missing := len(wanted - played.episodes.keys()):
                watcher.note(f"{level}: {missing} of {len(wanted)} episodes are left to other shards")
                continue
        results[level] = conclude(chosen, played, samples=options.samples, pass_at=options.pass_at)
    return results if len(results) == len(tasks) else None


def _report(results: Levels, options: _Evaluate) -> None:
    from spark_rl.evaluation.tables import report

    tables = report(results)
    print(tables)
    if options.folder:
        write_json(options.folder / "results.json", levels_to_json(results))
        write_bytes(options.folder / "results.md", f"{tables}\n".encode())
    elif options.out:
        write_json(options.out, levels_to_json(results))
