"""`spark-rl eto`: a cold-started run learns from its own failures (ETO, arXiv 2403.02502)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from spark_rl.commands.base import Call
from spark_rl.commands.ranks import launch_ranks, speaks, working
from spark_rl.common.running import run as run_loop
from spark_rl.config.options import INLINE
from spark_rl.config.recipe import Recipe, Scale
from spark_rl.errors import UsageError
from spark_rl.models.weights import Weights
from spark_rl.objective.preferences import Preferences
from spark_rl.runs.run import Run
from spark_rl.types import Sampling

__all__ = ["eto"]


@dataclass(frozen=True, kw_only=True)
class _Eto:
    """Let a cold-started policy play training tasks, pair its failures with successes, and learn from the pairs by DPO.

    World, prompts and horizon are the run's own. The same command with the same --out continues.
    """

    out: Path
    """Run directory to make; `spark-rl eval` opens it."""
    preferences: Preferences = field(metadata=INLINE)
    sampling: Sampling
    """Sampling settings of the policy while it plays."""
    weights: Weights
    seed: int
    """Seed of the tasks, the samples and the order of pairs."""
    probe: int = 50
    """Development tasks to play after each iteration; 0 plays none."""
    threads: int = 0
    """Threads of a matrix product; 0 measures."""
    scale: Scale


def eto(call: Call) -> int:
    """Do the remaining work, then print the results of each iteration."""
    words = ["eto", *call.argv]
    name, call = call.positional("a run directory with a cold start")
    source = call.open_run(name)
    recipe = source.recipe
    options = call.options(
        _Eto(
            out=Path(f"{name.rstrip('/')}-eto"),
            preferences=Preferences(learning_rate=recipe.optimizer.learning_rate),
            sampling=recipe.sampling,
            weights=recipe.weights,
            seed=recipe.seed,
            scale=Scale(),
            threads=recipe.threads or source.settings.get("threads", 0),
        )
    )
    if options.probe < 0:
        raise UsageError(f"probe is {options.probe}: it must be at least 0")
    recipe = replace(
        recipe,
        name=f"{recipe.name}-eto",
        iterations=options.preferences.iterations,
        sampling=options.sampling,
        weights=options.weights,
        seed=options.seed,
        threads=options.threads,
        scale=Scale(),
    )
    try:
        if not launch_ranks(call, words, options.scale.ranks, "the same command"):
            _improve(call, source, recipe, options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command continues it") from None
    if speaks():
        _report(call.open_run(options.out))
    return 0


def _improve(call: Call, source: Run, recipe: Recipe, options: _Eto) -> None:
    """Do the work in this process, which may be a rank."""
    with working(call, recipe.weights.device) as (ranks, watcher):
        from spark_rl.learning.finetuning.eto import begin, improve

        begun = (options.out, source, recipe, options.preferences, options.probe)
        if not ranks.rank:
            begin(*begun)
        ranks.gather(None)
        run_loop(improve(begin(*begun), options.preferences, options.probe, watcher, ranks))


def _report(run: Run) -> None:
    for row in run.metrics():
        line = f"iteration {row['iteration']:.0f}: played {row['trees']:.0f} tasks, success {row['success']:.3f}; "
        line += f"{row['pairs']:.0f} pairs"
        if row["pairs"]:
            line += f", loss {row['dpo_loss']:.3f}, {row['dpo_accuracy']:.0%} told apart"
        if "dev_success" in row:
            line += f"; then {row['dev_success']:.3f} on development tasks ({row['dev_low']:.3f} to {row['dev_high']:.3f})"
        print(line)
    print(f"{run.directory}: spark-rl eval {run.directory} plays every test task")
