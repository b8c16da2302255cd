"""`spark-rl sft`: the cold start of a recipe, or of a file of demonstrations, as a command of its own; then a probe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from spark_rl.commands.base import Call, holds_run, hush
from spark_rl.common.files import write_json
from spark_rl.common.running import run as run_loop
from spark_rl.config.codec import decode
from spark_rl.config.options import INLINE, take
from spark_rl.config.recipe import ColdStart, Evaluation, Recipe
from spark_rl.contracts import ModelSource, Watcher
from spark_rl.data.format import read_records
from spark_rl.errors import UsageError
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.runs.run import Run
from spark_rl.types import TreeShape

__all__ = ["sft"]

PROBE = "probe.json"
FIGURES = ("success", "low", "high", "wins", "tasks", "steps", "malformed_ratio", "invalid_ratio", "explore_ratio", "tokens")
"""What the probe keeps of an evaluation."""


@dataclass(frozen=True)
class _Sft:
    """Teach a model by demonstrations: the cold start of a recipe, any field of which can be set here.

    Called again with the same --out it does what is missing. `--data FILE --model M` instead of a recipe: world, level and
    prompts are those of the file, everything else is as in the paper.
    """

    out: Path
    """Run directory to make; `spark-rl train --resume` goes on from it to reinforcement learning."""
    recipe: Recipe = field(metadata=INLINE)
    probe: int = 50
    """Development tasks played afterwards; 0 none."""


def sft(call: Call) -> int:
    """Make the run's checkpoint `cold-start` unless it is there, probe it, and say what came out."""
    options = _options(call)
    if options.probe < 0:
        raise UsageError(f"probe is {options.probe}: it must be at least 0")
    if options.recipe.cold_start.demonstrations == 0:
        raise UsageError("cold_start.demonstrations is 0, so there is nothing to learn from: ask for some")
    if holds_run(options.out):
        run = call.open_run(options.out)
        if run.recipe != options.recipe:
            raise UsageError(f"{options.out} holds a run with other settings: give another --out, or delete it")
    else:
        run = Run.create(options.out, options.recipe)
    try:
        with call.watching() as watcher:
            watcher.phase("start")
            result = run_loop(_learn_and_probe(run, options.probe, watcher))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command continues it") from None
    _tell(run, result)
    return 0


def _options(call: Call) -> _Sft:
    """A recipe by name, or that of a file."""
    if not call.argv or not call.argv[0].startswith("-") or call.argv[0] in ("-h", "--help"):
        name, call = call.positional("a recipe, or --data FILE --model M", RECIPES)
        recipe = load_recipe(name)
        return call.options(_Sft(Path("runs") / f"{recipe.name}-sft", recipe))
    file, argv = take(call.argv, "--data")
    model, argv = take(argv, "--model")
    if file is None or model is None:
        raise UsageError(f"{call.prog} needs a recipe ({', '.join(RECIPES)}), or --data FILE and --model M")
    recipe = _of_file(Path(file), model, call)
    return replace(call, argv=argv).options(_Sft(Path("runs") / f"{recipe.name}-sft", recipe))


def _of_file(file: Path, model: str, call: Call) -> Recipe:
    """What a file of demonstrations says of itself, with the paper's settings for the rest.

    Raises:
        UsageError: it does not say all, or not the same in all lines, or holds no won trajectory.
    """
    groups = read_records(file)
    won = [group for group in groups if group[0]["success"]]
    if not won:
        raise UsageError(f"{file} holds no won trajectory to learn from: write one with `spark-rl demos`")
    said: dict[str, str] = {}
    for column in ("world", "level", "rendering"):
        found = sorted({str(group[0][column]) for group in groups})
        if found == [""] or len(found) > 1:
            wrong = f"{len(found)} values" if len(found) > 1 else "nothing"
            raise UsageError(
                f'{file} has {wrong} in its column "{column}", so how to play is not known: name a recipe and give the file '
                f"by --cold-start.data {file}"
            )
        said[column] = found[0]
    world, prompt = (decode(json.loads(said[column]), foreign=call.trusts) for column in ("world", "rendering"))
    longest = max(len(group) for group in won)
    return Recipe(
        name=file.stem,
        env=world,
        model=model,
        level=cast(Any, said["level"]),
        tree=TreeShape(horizon=max(TreeShape().horizon, longest)),
        prompt=prompt,
        cold_start=ColdStart(demonstrations=len(won), data=str(file)),
        evaluation=Evaluation(levels=cast(Any, (said["level"],)), dev_level=cast(Any, said["level"])),
    )


async def _learn_and_probe(run: Run, count: int, watcher: Watcher) -> Mapping[str, Any]:
    """The cold start and its probe, each unless it is there."""
    from spark_rl.learning import memory
    from spark_rl.learning.prepare import prepare, set_threads

    hush()
    needed = memory.check(replace(run.recipe, iterations=0))
    watcher.note(f"memory: {needed.total / 1e9:.1f} GB at most")
    set_threads(run, watcher)
    model, tokenizer = await prepare(run, watcher)
    file = run.directory / PROBE
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if not count or known.get("asked") == count:
        return known if count else {}
    from spark_rl.evaluation.play import measure
    from spark_rl.rollout.executors.in_process import open_executor

    recipe = run.recipe
    tasks = recipe.env.tasks(recipe.evaluation.dev_level, "dev")[:count]
    watcher.phase("probe", len(tasks))
    async with open_executor(recipe.engine, recipe.env, ModelSource(loaded=(model, tokenizer))) as executor:
        result = await measure(executor, recipe, tasks, watcher.advance)
    said = {
        "asked": count,
        "level": recipe.evaluation.dev_level,
        "split": "dev",
        **{name: getattr(result, name) for name in FIGURES},
    }
    write_json(file, said)
    return said


def _tell(run: Run, probe: Mapping[str, Any]) -> None:
    if probe:
        print(
            f"{probe['tasks']} development tasks of {probe['level']}: success {probe['success']:.3f} "
            f"({probe['wins']}/{probe['tasks']}, 95 % {probe['low']:.3f} to {probe['high']:.3f}), "
            f"{1 - probe['malformed_ratio']:.1%} of the steps well-formed, {probe['explore_ratio']:.1%} explore"
        )
    print(f"{run.directory}: checkpoint cold-start; spark-rl train --resume {run.directory} goes on with it")
