"""`spark-rl sft`: the cold start of a recipe or of a file of demonstrations, without the training after it; then a probe."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, cast

from spark_rl.commands.base import Call, holds_run
from spark_rl.commands.ranks import launch_ranks, speaks, working
from spark_rl.common.files import write_json
from spark_rl.common.running import run as run_loop
from spark_rl.config.codec import decode
from spark_rl.config.options import INLINE, take
from spark_rl.config.recipe import ColdStart, Evaluation, Recipe
from spark_rl.contracts import ModelSource, Ranks, Watcher
from spark_rl.data.format import read_records
from spark_rl.errors import UsageError
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.runs.run import Follower, Run
from spark_rl.scale.group import first
from spark_rl.types import Level, TreeShape

__all__ = ["sft"]

PROBE = "probe.json"
"""File in the run directory that holds the probe's `_Probe`."""


class _Probe(TypedDict):
    """The evaluation on development tasks after the cold start, as it is saved; numbers are those of `LevelResult`."""

    asked: int
    """The option --probe; there may be fewer development tasks."""
    level: str
    split: str
    success: float
    low: float
    high: float
    wins: int
    tasks: int
    steps: float
    malformed_ratio: float
    invalid_ratio: float
    explore_ratio: float
    tokens: float


@dataclass(frozen=True)
class _Sft:
    """Teach a model by demonstrations: the cold start of a recipe, any field of which can be set here.

    The same command with the same --out continues. `--data FILE --model M` takes the place of a recipe: world, level and
    prompts are those of the file, and everything else is as in the paper.
    """

    out: Path
    """Run directory to make; `spark-rl train --resume` continues it with reinforcement learning."""
    recipe: Recipe = field(metadata=INLINE)
    probe: int = 50
    """Development tasks to play after the cold start; 0 plays none."""


def sft(call: Call) -> int:
    """Make the run's checkpoint `cold-start` unless it exists, probe it, and print the result."""
    words = ["sft", *call.argv]
    options = _options(call)
    if options.probe < 0:
        raise UsageError(f"probe is {options.probe}: it must be at least 0")
    if options.recipe.cold_start.demonstrations == 0:
        raise UsageError("cold_start.demonstrations is 0, so there is nothing to learn from: set at least 1")
    if holds_run(options.out):
        run = call.open_run(options.out)
        if replace(run.recipe, scale=options.recipe.scale) != options.recipe:
            raise UsageError(f"{options.out} holds a run with other settings: give another --out, or delete it")
    else:
        run = Run.create(options.out, options.recipe) if first() else Run(options.out, options.recipe, {})
    try:
        if not launch_ranks(call, words, options.recipe.scale.ranks, "the same command"):
            with working(call, options.recipe.weights.device) as (ranks, watcher):
                run_loop(_learn_and_probe(Follower.of(run) if ranks.rank else run, options.probe, watcher, ranks))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command continues it") from None
    if speaks():
        _report(run, options.probe)
    return 0


def _options(call: Call) -> _Sft:
    """The options on top of a named recipe, or of the recipe that a file of demonstrations implies."""
    if not call.argv or not call.argv[0].startswith("-") or call.argv[0] in ("-h", "--help"):
        name, call = call.positional("a recipe, or --data FILE --model M", RECIPES)
        recipe = load_recipe(name)
        return call.options(_Sft(Path("runs") / f"{recipe.name}-sft", recipe))
    file, argv = take(call.argv, "--data")
    model, argv = take(argv, "--model")
    if file is None or model is None:
        raise UsageError(f"{call.prog} needs a recipe ({', '.join(RECIPES)}), or --data FILE and --model M")
    recipe = _recipe_of_file(Path(file), model, call)
    return replace(call, argv=argv).options(_Sft(Path("runs") / f"{recipe.name}-sft", recipe))


def _recipe_of_file(file: Path, model: str, call: Call) -> Recipe:
    """A recipe with the world, level and prompts of a file of demonstrations, and the paper's settings for the rest.

    Raises:
        UsageError: one of the three is missing or differs between lines, or the file holds no won trajectory.
    """
    groups = read_records(file)
    won = [group for group in groups if group[0]["success"]]
    if not won:
        raise UsageError(f"{file} holds no won trajectory to learn from: write one with `spark-rl demos`")
    columns: dict[str, str] = {}
    for column in ("world", "level", "rendering"):
        values = sorted({str(group[0][column]) for group in groups})
        if values == [""] or len(values) > 1:
            wrong = f"{len(values)} values" if len(values) > 1 else "nothing"
            raise UsageError(
                f'{file} has {wrong} in its column "{column}", so how to play is not known: name a recipe and give the file '
                f"by --cold-start.data {file}"
            )
        columns[column] = values[0]
    world, prompt = (decode(json.loads(columns[column]), foreign=call.trusts) for column in ("world", "rendering"))
    level = cast("Level", columns["level"])  # a world refuses a level that it does not have
    longest = max(len(group) for group in won)
    return Recipe(
        name=file.stem,
        env=world,
        model=model,
        level=level,
        tree=TreeShape(horizon=max(TreeShape().horizon, longest)),
        prompt=prompt,
        cold_start=ColdStart(demonstrations=len(won), data=str(file)),
        evaluation=Evaluation(levels=(level,), dev_level=level),
    )


async def _learn_and_probe(run: Run, count: int, watcher: Watcher, ranks: Ranks) -> None:
    """Do the cold start and its probe, each unless its result exists; `count` 0 asks for no probe."""
    from spark_rl.learning import memory
    from spark_rl.learning.prepare import prepare, set_threads

    needed = memory.check(replace(run.recipe, iterations=0))
    watcher.note(f"memory: {needed.total / 1e9:.1f} GB at most")
    set_threads(run, watcher, ranks)
    model, tokenizer = await prepare(run, watcher, ranks)
    if ranks.gather(not count or _probed(run, count) is not None)[0]:
        return
    from spark_rl.evaluation.play import measure
    from spark_rl.rollout.executors.in_process import open_executor

    recipe = run.recipe
    tasks = recipe.env.tasks(recipe.evaluation.dev_level, "dev")[:count]
    watcher.phase("probe", len(tasks))
    async with open_executor(recipe.engine, recipe.env, ModelSource(loaded=(model, tokenizer)), ranks=ranks) as executor:
        result = await measure(executor, recipe, tasks, watcher.advance)
    probe = _Probe(
        asked=count,
        level=recipe.evaluation.dev_level,
        split="dev",
        success=result.success,
        low=result.low,
        high=result.high,
        wins=result.wins,
        tasks=result.tasks,
        steps=result.steps,
        malformed_ratio=result.malformed_ratio,
        invalid_ratio=result.invalid_ratio,
        explore_ratio=result.explore_ratio,
        tokens=result.tokens,
    )
    if not ranks.rank:
        write_json(run.directory / PROBE, probe)


def _probed(run: Run, count: int) -> _Probe | None:
    """The probe of so many tasks, if it has been made."""
    file = run.directory / PROBE
    saved: _Probe | None = json.loads(file.read_text()) if file.exists() else None
    return saved if saved and saved.get("asked") == count else None


def _report(run: Run, count: int) -> None:
    if probe := _probed(run, count):
        print(
            f"{probe['tasks']} development tasks of {probe['level']}: success {probe['success']:.3f} "
            f"({probe['wins']}/{probe['tasks']}, 95 % {probe['low']:.3f} to {probe['high']:.3f}), "
            f"{1 - probe['malformed_ratio']:.1%} of the steps well-formed, {probe['explore_ratio']:.1%} explore"
        )
    print(f"{run.directory}: checkpoint cold-start; continue with: spark-rl train --resume {run.directory}")
