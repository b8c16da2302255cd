"""How much does a forest say? The gradient's signal-to-noise ratio of one policy under several algorithms.

    python benchmarks/gradients.py DIR --arms grpo paper strategic --forests 4

DIR is a directory of `spark-rl compare`: each of its seeds' cold starts grows the same tasks under each arm. The ratio is
that of a tree, |mean gradient|^2 over the variance of one tree's; trees without signal count as gradients of zero. What
learning can expect from a budget grows with ratio x trees, so what compares arms is the ratio per thousand generated
tokens. Means over seeds with 95 % intervals, differences paired by seed.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from spark_rl.config.recipe import Recipe
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.experiments.compare.curves import interval, paired
from spark_rl.learning.batch import pack
from spark_rl.learning.learner import has_signal
from spark_rl.learning.packing import Passes
from spark_rl.learning.update import signal_to_noise
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.recipes.algorithms import with_algorithm
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.rollout.tasks import choose_tasks
from spark_rl.runs.run import Run


class Signal(NamedTuple):
    """What one arm's forests of one seed say."""

    ratio: float
    """Of one tree."""
    silent: float
    """Share of trees without signal."""
    tokens: float
    """Generated for a tree."""

    @property
    def efficiency(self) -> float:
        """Ratio for a thousand tokens."""
        return 1000 * self.ratio / self.tokens


def measure(recipe: Recipe, checkpoint: Path, forests: int) -> Signal:
    """Grow forests from a checkpoint and measure their gradients."""
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    executor = InProcess(recipe.env, LocalEngine(model, tokenizer, cache_bytes=recipe.engine.memory()))
    tasks, trees, tokens = recipe.env.tasks(recipe.level, "train"), [], 0
    for iteration in range(1, forests + 1):
        chosen = choose_tasks(tasks, recipe.tasks_per_iteration, seed=recipe.seed, iteration=iteration)
        forest = asyncio.run(executor.grow(chosen, recipe.growth, seed=recipe.seed, iteration=iteration))
        trees += forest.trees
        tokens += forest.spent.generated
    credits = [recipe.rewards.credit(tree, recipe.advantage) for tree in trees]
    telling = [i for i, tree in enumerate(trees) if has_signal(recipe.advantage(recipe.rewards.shape(tree)))]
    ratio = signal_to_noise(
        model,
        pack([trees[i] for i in telling], [credits[i] for i in telling]),
        recipe.loss,
        Passes(recipe.sampling.temperature, recipe.optimizer.token_budget),
        silent=len(trees) - len(telling),
    )
    return Signal(ratio, 1 - len(telling) / len(trees), tokens / len(trees))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every arm on every seed's cold start, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--arms", nargs="+", default=["grpo", "paper", "gigpo", "strategic", "strategic_chains"])
    parser.add_argument("--forests", type=int, default=4)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: defaultdict[str, list[Signal]] = defaultdict(list)
    for cold in sorted((options.directory / "cold").iterdir()):
        checkpoint, recipe = cold / "checkpoints" / "cold-start", Run.open(cold).recipe
        if checkpoint.exists():
            for arm in options.arms:
                found[arm].append(measure(with_algorithm(recipe, arm), checkpoint, options.forests))
                print(f"{cold.name} {arm}: {found[arm][-1]}", flush=True)
    print(table(found))


def table(found: dict[str, list[Signal]]) -> str:
    """One row an arm; the first is the baseline."""
    lines = [
        "| arm | ratio of a tree | trees without signal | tokens a tree | ratio per 1,000 tokens | difference |",
        "|---|---|---|---|---|---|",
    ]
    base = next(iter(found.values()))
    for arm, signals in found.items():
        columns = [
            f"{interval([signal.ratio for signal in signals]):.4f}",
            f"{interval([signal.silent for signal in signals]):.2f}",
            f"{interval([signal.tokens for signal in signals]):.0f}",
            f"{interval([signal.efficiency for signal in signals]):.4f}",
            "-" if signals is base else f"{paired([s.efficiency for s in signals], [s.efficiency for s in base]):+.4f}",
        ]
        lines.append(f"| {arm} | {' | '.join(columns)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
