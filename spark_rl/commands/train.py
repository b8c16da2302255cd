"""`spark-rl quickstart` and `spark-rl train`: start, repeat or continue a run, then print its results."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from spark_rl.commands.base import Call, holds_run, hush, show
from spark_rl.commands.ranks import launch_ranks, speaks, working
from spark_rl.config.codec import by_option, encode
from spark_rl.config.options import INLINE, parse, take
from spark_rl.config.recipe import Recipe
from spark_rl.errors import SparkError, UsageError
from spark_rl.models.pretrained import PRETRAINED, Pretrained, made, models_folder
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.runs.run import Run
from spark_rl.scale.group import agreed, first

__all__ = ["quickstart", "train"]

QUICK = {"smollm2-135m": "quickstart-smollm"}
"""The recipe of a quickstart with a pretrained model."""


@dataclass(frozen=True)
class _Train:
    """Train a recipe, any field of which can be set here."""

    out: Path
    """Run directory to make."""
    recipe: Recipe = field(metadata=INLINE)


def train(call: Call) -> int:
    """Train a named recipe, repeat an earlier run (`--from`), or continue an unfinished run (`--resume`).

    A run continues with the settings that it began with. Only its processes (`--scale.*`) may be other ones.
    """
    dry = "--dry-run" in call.argv
    resumed, argv = take([word for word in call.argv if word != "--dry-run"], "--resume")
    source, argv = take(argv, "--from")
    call = replace(call, argv=argv)
    if resumed is not None:
        named = [*(["--from"] if source else []), *(word for word in argv if word.startswith("-"))]
        if others := [word for word in named if not word.startswith("--scale.")]:
            raise UsageError(
                f"--resume continues a run as it is: leave out {others[0]}, or start anew with --from {resumed} --out DIR"
            )
        run = _trained(call, resumed)
        run.recipe = parse(run.recipe, argv, call.prog)
        if dry:
            return _dry_run(run.recipe)
    else:
        if source is not None:
            recipe, call = _repeated(_trained(call, source)), replace(call, prog=f"{call.prog} --from {source}")
            recipe, call = call.algorithm(recipe)
        else:
            name, call = call.positional("a recipe", RECIPES)
            recipe, call = call.algorithm(load_recipe(name))
        options = call.options(_Train(Path("runs") / recipe.name, recipe))
        if dry:
            return _dry_run(options.recipe)
        run = _new(options)
    _go(call, run)
    return 0


def quickstart(call: Call) -> int:
    """Train the quickstart recipe, or continue its stopped run; then print the results.

    `--model smollm2-135m` trains that model instead of one from scratch, by a recipe of its own.
    """
    name, argv = take(call.argv, "--model")
    if name in PRETRAINED:
        call = replace(call, argv=argv)
        recipe = load_recipe(QUICK[name])
    else:
        recipe = load_recipe("quickstart")
    options = call.options(_Train(Path("runs") / recipe.name, recipe))
    if name in PRETRAINED:
        _get(call, PRETRAINED[name])
    if holds_run(options.out):
        run = call.open_run(options.out)
        if options.recipe not in (recipe, run.recipe):
            raise UsageError(f"{options.out} holds a run with other settings: give another --out, or delete it")
    else:
        run = _new(options)
    before = run.finished
    _go(call, run)
    show(
        "",
        f"This is one seed ({run.recipe.seed}) and proves little by itself: benchmarks/learning.py compares several.",
        f"Every tree, as a page to open in a browser: spark-rl report {run.directory}",
        f"More trees here: spark-rl show {run.directory} --iteration K --task I",
    )
    if before:
        show(f"The run had finished before; to start anew, give another --out or delete {run.directory}.")
    return 0


def _get(call: Call, model: Pretrained) -> None:
    """Say what a quickstart with a pretrained model takes, then make the model's folder unless it is there."""
    folder = models_folder() / model.name
    here = Path(model.name).exists() or made(model) is not None
    print(
        f"{model.title}, {model.licence}. On two idle cores this takes up to 20 minutes and 10 GB of memory"
        + (f"; the model is in {folder}." if here else f", and a download of {model.download_mb} MB into {folder}.")
    )
    if not here:
        from spark_rl.models.fetch import fetch

        hush()
        with call.watching() as watcher:
            fetch(model, folder, tell=watcher.note)


def _trained(call: Call, directory: str) -> Run:
    """Open a run of `spark-rl train`.

    Raises:
        UsageError: `spark-rl eto` made the run, so that its recipe does not describe its training.
    """
    run = call.open_run(directory)
    if run.preferences is not None:
        raise UsageError(
            f"{directory} was made by `spark-rl eto`, which continues it; to train on from its model give "
            f"--model {directory} --cold-start.demonstrations 0 after a recipe"
        )
    return run


def _dry_run(recipe: Recipe) -> int:
    """Print every field of the recipe, its memory and the time that it takes; nothing is written or trained."""
    for name, value in by_option(encode(recipe)):
        print(f"{name:36} {value}")
    from spark_rl.learning import memory

    hush()
    model = memory.shape(recipe)
    recipe = memory.fitted(recipe, model)
    needed = memory.need(recipe, model)
    device, size = memory.device_bytes(recipe.weights.device)
    print(f"\n{model.parameters / 1e6:,.1f} M parameters\n{needed.table()}\n{device} has{size / 1e9:57.3f} GB")
    memory.check(recipe, model)
    print(f"\ntime: {_time(recipe)}")
    return 0


def _time(recipe: Recipe) -> str:
    """How long the run takes, from a measurement of some seconds; or why that is not known."""
    import torch

    from spark_rl.common.running import run
    from spark_rl.engines.local.settings import Local
    from spark_rl.learning.forecast import forecast
    from spark_rl.models.threads import choose_threads

    torch.set_num_threads(recipe.threads or choose_threads())
    try:
        expected = run(forecast(recipe))
    except SparkError as error:
        return f"not estimated ({error})"
    if expected:
        return expected.sentence()
    local = isinstance(recipe.engine, Local)
    return f"not estimated, for {'this model is not here' if local else 'only the local engine is started'} to be measured"


def _repeated(run: Run) -> Recipe:
    """The recipe of a run, with the thread count that the run measured."""
    return replace(run.recipe, threads=run.recipe.threads or run.settings.get("threads", 0))


def _new(options: _Train) -> Run:
    """A new run. The first of several ranks makes it; the others read nothing of it before that one has waited for them."""
    return Run.create(options.out, options.recipe) if first() else Run(options.out, options.recipe, {})


def _go(call: Call, run: Run) -> None:
    """Train a run to its end, in this process or in ranks that it starts; then print its results."""
    ranks, how = run.recipe.scale.ranks, f"spark-rl train --resume {run.directory}"
    words = ["train", "--resume", str(run.directory), "--scale.ranks", str(ranks)]
    try:
        if not run.finished and not launch_ranks(call, words, ranks, how):
            _train_here(call, run)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"continue with: {how}") from None
    if speaks():
        _report(run)


def _train_here(call: Call, run: Run) -> None:
    """Train a run in this process, which may be a rank."""
    run.recipe = replace(run.recipe, scale=replace(run.recipe.scale, ranks=agreed(run.recipe.scale.ranks)))
    with working(call, run.recipe.weights.device) as (ranks, watcher):
        from spark_rl.learning.trainer import in_process, train

        growing = in_process
        if run.recipe.scale.executor == "ray":
            from spark_rl.scale.on_workers import on_ray
            from spark_rl.scale.ray_crew import try_out

            try_out(run.recipe.scale)
            growing = on_ray
        train(run, watcher, ranks=ranks, growing=growing)


def _report(run: Run) -> None:
    from spark_rl.report.reading import read_run
    from spark_rl.report.terminal import choose_tree, draw_tree, leaf_advantages, summary
    from spark_rl.runs.forests import iterations, load_forest

    show(summary(read_run(run.directory, foreign=lambda _: True)))  # the user's own recipe is loaded already
    if iterations(run.directory):
        forest = load_forest(run.directory)
        tree = forest.trees[choose_tree(forest)]
        show("", f"A tree of iteration {forest.iteration}", draw_tree(tree, leaf_advantages(tree, run.recipe)))
