"""`spark-rl eval`: play every task of a level, once or several times, with a model of one's own or behind a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.commands.asking import answers_file, show_prompt
from spark_rl.commands.base import Call, holds_run, how_to_play, load_weights
from spark_rl.common.files import write_bytes, write_json
from spark_rl.common.seeding import derive
from spark_rl.config.codec import encode
from spark_rl.config.options import INLINE, take
from spark_rl.contracts import Branching, Growth, Policy, Watcher, World
from spark_rl.data.leaks import refuse_held_out
from spark_rl.engines.openai import Endpoint, OpenAIPolicy, connect
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.evaluation.episodes import Folder, Played, Shard, open_folder
from spark_rl.evaluation.lookahead import CHOICES, Choose
from spark_rl.policies.voting import Voting
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.playing import Grows, WithPolicy
from spark_rl.types import Level, Sampling, Split, Task, TreeShape

__all__ = ["evaluate"]

POLICIES = ("branching", "model", "openai")


@dataclass(frozen=True, kw_only=True)
class _Evaluate:
    """What all that can be evaluated have in common."""

    level: tuple[Level, ...]
    """Which levels."""
    temperature: float
    """0 means greedy."""
    env: World
    prompt: Prompt
    tree: TreeShape
    """Its horizon holds always, the rest where episodes are chosen among."""
    branching: Branching
    """Where the agent branches, where it does."""
    max_tokens: int
    """Most tokens of a completion."""
    split: Split = "test"
    """Which tasks of the level."""
    tasks: int = 0
    """Only the first so many tasks of each level; 0 takes all."""
    samples: int = 1
    """Episodes of each task."""
    pass_at: tuple[int, ...] = ()
    """Values of k for the unbiased Pass@k, none above `samples`."""
    choose: Literal["none", "majority", "likelihood"] = "none"
    """Branch, and choose by a vote on actions or by the policy's mean log-probability of a token; none: one trajectory."""
    among: Literal["episodes", "steps"] = "episodes"
    """What is chosen among: trajectories of a tree, played to their ends in forks of the environment; or completions in a
    state where the agent explores, of which one is executed and nothing is forked."""
    seed: int = 0
    """Of the samples."""
    batch: int = 64
    """Tasks played at once."""
    shard: str = ""
    """Only a share of the batches, such as 2/4; all shards go to one `out`, where the whole is evaluated without it."""
    out: Path | None = None
    """Folder for episodes, numbers and tables, from which an interrupted evaluation goes on; a name that ends in .json is a
    file for the numbers alone."""

    def __post_init__(self) -> None:
        at_least("", self, temperature=0, tasks=0, samples=1, batch=1)
        if wrong := [k for k in self.pass_at if not 1 <= k <= self.samples]:
            raise UsageError(f"pass_at is {wrong[0]}, and samples {self.samples}: k must be from 1 to samples")
        if self.choose != "none" and self.temperature == 0:
            raise UsageError("temperature is 0, at which all branches are the same: raise it, or leave --choose out")
        if self.choose != "none" and self.among == "steps" and not hasattr(self.branching, "width"):
            raise UsageError(
                "--among steps asks as often as --branching.width says: choose a rule that has one (explore-tag)"
            )
        if self.part and self.folder is None:
            raise UsageError("--shard needs --out DIR, the folder where the shards come together")

    @property
    def folder(self) -> Path | None:
        """Where episodes are kept."""
        return None if self.out is None or self.out.suffix == ".json" else self.out

    @property
    def part(self) -> Shard | None:
        """The share of the batches that is played; None: all."""
        return Shard.read(self.shard) if self.shard else None

    @property
    def growth(self) -> Growth:
        """How the tasks are played."""
        return Growth(self.tree, self.branching, self.prompt, Sampling(self.temperature, self.max_tokens))

    @property
    def chooses(self) -> Choose | None:
        """The rule that takes one leaf of a tree, where there are trees."""
        return CHOICES[self.choose] if self.choose != "none" and self.among == "episodes" else None

    def around(self, policy: Policy) -> Policy:
        """The policy that acts: it, or a vote among its answers."""
        if self.choose == "none" or self.among == "episodes":
            return policy
        return Voting(policy, getattr(self.branching, "width"), self.choose, self.prompt.parse)  # noqa: B009  a Protocol does not name it

    def chosen(self) -> dict[Level, list[Task]]:
        """The tasks by level."""
        return {level: list(self.env.tasks(level, self.split)[: self.tasks or None]) for level in self.level}

    def said(self, model: str) -> dict[str, Any]:
        """What decides what an episode is."""
        names = ["env", "prompt", "temperature", "max_tokens", "split", "seed"]
        names += ["choose", "among", "branching", "tree"] if self.choose != "none" else []
        settings = {name: encode(getattr(self, name)) for name in names}
        return {"model": model, "horizon": self.tree.horizon, **settings}


@dataclass(frozen=True, kw_only=True)
class _OfModel(_Evaluate):
    """Play every task of each level exactly `--samples` times and report success with its fraction and interval.

    What is no run needs `--recipe NAME` or `--env NAME`, which say what is played. `--policy branching` is `--choose
    majority`: the agent branches, and one of the branches counts. `--policy openai` asks a server instead of loading a
    model, and takes other options.
    """

    checkpoint: str = "last"
    """Of a run: last, best, cold-start, or the number of an iteration."""
    cache_gb: float = 2.0
    """Most memory of the keys and values kept between steps."""
    threads: int = 0
    """Threads of a matrix product; 0 measures."""


@dataclass(frozen=True, kw_only=True)
class _OfServer(_Evaluate):
    """Let a model behind a server play every task of each level exactly `--samples` times and report success.

    `--recipe NAME` or `--env NAME` say what is played. `--prompt.instructions react` (or plain) makes a prompted baseline.
    """

    endpoint: Endpoint = field(default=Endpoint(), metadata=INLINE)
    dry_run: bool = False
    """Print the prompt of the first step, and ask nobody."""


def evaluate(call: Call) -> int:
    """Print a table, a row a level; write the numbers when asked to."""
    policy, argv = take(call.argv, "--policy")
    recipe_name, argv = take(argv, "--recipe")
    if policy is not None and policy not in POLICIES:
        raise unknown_name("policy", policy, POLICIES)
    name, call = replace(call, argv=argv).positional("a run directory, a model directory or a hub name")
    recipe, threads, call = how_to_play(call, name, recipe_name, run=policy != "openai")
    settings: dict[str, Any] = {
        "level": recipe.evaluation.levels,
        "temperature": recipe.evaluation.temperature,
        "env": recipe.env,
        "prompt": recipe.prompt,
        "tree": recipe.tree,
        "branching": recipe.branching if isinstance(recipe.branching, ExploreTag) else ExploreTag(),
        "max_tokens": recipe.sampling.max_tokens,
        "choose": "majority" if policy == "branching" else "none",
        "seed": recipe.seed,
        "batch": recipe.evaluation.batch,
    }
    with call.watching() as watcher:
        if policy == "openai":
            options = call.options(_OfServer(**settings))
            if options.dry_run:
                tasks = next(iter(options.chosen().values()))
                show_prompt(options.env, tasks[0], options.prompt)
                return 0
            results = asyncio.run(_ask(name, options, watcher))
        else:
            options = call.options(_OfModel(**settings, cache_gb=recipe.engine.cache_gb, threads=threads))
            if holds_run(Path(name)) and options.split != "train":
                refuse_held_out(call.open_run(name), options.level, options.env)
            results = _load_and_play(name, options, watcher)
    if results is not None:
        _tell(results, options)
    return 0


def _load_and_play(name: str, options: _OfModel, watcher: Watcher) -> dict[str, Any] | None:
    """Play with a model in this process."""
    tasks = options.chosen()
    watcher.phase("load the model")
    from spark_rl.rollout.executors.in_process import InProcess
    from spark_rl.runs.checkpoints import model_folder

    place = Path(model_folder(name, options.checkpoint))
    kept = name
    if options.folder and place.exists():  # as seen from there, so that both may be moved together
        kept = os.path.relpath(place.resolve(), options.folder.resolve())
    with _kept(options, kept) as folder:
        model, tokenizer = load_weights(name, options.checkpoint, threads=options.threads)
        executor = InProcess(model, tokenizer, options.env, cache_gb=options.cache_gb, around=options.around)
        return asyncio.run(_play(executor, tasks, options, watcher, folder))


async def _ask(name: str, options: _OfServer, watcher: Watcher) -> dict[str, Any] | None:
    """Play with a model behind a server."""
    tasks = options.chosen()
    with _kept(options, f"{name} at {options.endpoint.where}") as folder:
        # Shards are processes of their own, and one process has a file of answers.
        out = options.out.with_name(options.out.name + options.shard.replace("/", "-of-")) if options.out else None
        async with connect(name, options.endpoint, answers_file(out, name)) as server:
            try:
                executor = WithPolicy(options.around(OpenAIPolicy(server)), options.env)
                return await _play(executor, tasks, options, watcher, folder)
            finally:
                watcher.note(server.usage.line(options.endpoint))


@contextlib.contextmanager
def _kept(options: _Evaluate, model: str) -> Generator[Folder | None]:
    """The folder where episodes are kept, if any."""
    if options.folder is None:
        yield None
    else:
        with open_folder(options.folder, options.said(model), options.part) as folder:
            yield folder


async def _play(
    executor: Grows, tasks: Mapping[Level, list[Task]], options: _Evaluate, watcher: Watcher, folder: Folder | None
) -> dict[str, Any] | None:
    """The numbers of each level; None while other shards have not played all."""
    from spark_rl.evaluation.play import play
    from spark_rl.evaluation.results import conclude

    results: dict[str, Any] = {}
    for level, chosen in tasks.items():
        before = folder.level(level) if folder else Played()
        wanted = {(task.id, sample) for task in chosen for sample in range(options.samples)}
        watcher.phase(f"evaluate {level}", len(wanted), len(wanted & before.episodes.keys()))
        played = await play(
            executor,
            chosen,
            options.growth,
            temperature=options.temperature,
            seed=derive(options.seed, "evaluation"),
            samples=options.samples,
            batch=options.batch,
            choose=options.chooses,
            played=before,
            shard=options.part,
            advance=watcher.advance,
        )
        if folder and options.part:
            played = folder.level(level)  # the others have gone on
            if missing := len(wanted - played.episodes.keys()):
                watcher.note(f"{level}: {missing} of {len(wanted)} episodes are left to other shards")
                continue
        results[level] = conclude(chosen, played, samples=options.samples, pass_at=options.pass_at)
    return results if len(results) == len(tasks) else None


def _tell(results: Mapping[str, Any], options: _Evaluate) -> None:
    from spark_rl.evaluation.tables import report

    tables = report(results)
    print(tables)
    if options.folder:
        write_json(options.folder / "results.json", results)
        write_bytes(options.folder / "results.md", f"{tables}\n".encode())
    elif options.out:
        write_json(options.out, results)
