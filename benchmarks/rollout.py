"""What keeping keys and values along the tree saves: one saved forest grown again, and played by plain `generate`.

    python benchmarks/rollout.py [--run RUN | --model DIR [--recipe NAME]] [--tasks 8] [--horizon 30] [--repeats 3]

    spark-rl    `LocalEngine` through `grow_forest`: the whole rollout, environments and prompts included
    generate    one left-padded `transformers` call a round on the recorded prompts: a row a sample, every prompt read
                from its first token

Both run one model, on one thread, and end in the same tokens: the forest grown again must equal the saved one bit for bit,
and `generate` is forced to the recorded completions and must find their log-probabilities. They take turns; CPU-seconds
are medians. Without --run, a model is made for each context with a short cold start of the household recipe; it
wins little but writes proper steps. With --run, the run's own model and context are used, and the earliest of its forests
whose weights are still there. With --model, a pretrained model grows a forest of chains of a recipe as it comes, without a
cold start; prompts and their lengths are those of the recipe.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from spark_rl.commands.base import hush
from spark_rl.common.progress import watching
from spark_rl.config.recipe import Recipe
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.learning.prepare import prepare
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.recipes import load_recipe
from spark_rl.recipes.household import household
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.rollout.tasks import choose_tasks
from spark_rl.runs.forests import iterations, load_forest
from spark_rl.runs.run import Run
from spark_rl.types import Forest, Node

SHORT = 8
"""Epochs of the short cold start: few demonstrations have to be seen often."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5}
"""Most that a log-probability may differ between the engines: rounding of another order of sums, and no more."""


class Forced(LogitsProcessor):
    """Leaves each row only the token it must say next; a row that has said all is left alone."""

    def __init__(self, completions: torch.Tensor, width: int, temperature: float) -> None:
        """Take completions [rows, longest], padded on the right, and the padded length of the prompts."""
        self.completions, self.width, self.temperature = completions, width, temperature
        self.found: list[torch.Tensor] = []
        """Log-probabilities of the tokens, [rows] a step."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocabulary] with all else forbidden."""
        token = self.completions[:, input_ids.shape[1] - self.width, None]
        self.found.append((scores.float() / self.temperature).log_softmax(-1).gather(-1, token)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def rounds(forest: Forest) -> Iterator[list[Node]]:
    """Nodes of equal depth over all trees: what the rollout samples together."""
    nodes = [node for tree in forest for node in tree.nodes]
    for depth in range(1, max(node.depth for node in nodes) + 1):
        yield [node for node in nodes if node.depth == depth]


def generate(model: Any, pad: int, forest: Forest, temperature: float) -> float:
    """Play the forest with `generate`; the largest difference to a recorded log-probability."""
    worst = 0.0
    for nodes in rounds(forest):
        width = max(len(node.prompt) for node in nodes)
        longest = max(len(node.completion) for node in nodes)
        prompts = torch.tensor([[pad] * (width - len(node.prompt)) + list(node.prompt) for node in nodes])
        mask = torch.tensor([[0] * (width - len(node.prompt)) + [1] * len(node.prompt) for node in nodes])
        said = torch.tensor([list(node.completion) + [pad] * (longest - len(node.completion)) for node in nodes])
        forced = Forced(said, width, temperature)
        output = model.generate(
            input_ids=prompts,
            attention_mask=mask,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            max_new_tokens=longest,
            pad_token_id=pad,
            logits_processor=LogitsProcessorList([forced]),
        )
        if not torch.equal(output[:, width:], said):
            raise SystemExit("generate did not say the recorded completions, so the engines did not do the same work")
        found = torch.stack(forced.found, 1)
        for row, node in zip(found, nodes, strict=True):
            worst = max(worst, (row[: len(node.logprobs)] - torch.tensor(node.logprobs)).abs().max().item())
    return worst


def measure(run: Run, repeats: int) -> None:
    """Play the saved forest in turns and print its rows of the table."""
    iteration, weights = replayable(run)
    forest, recipe = load_forest(run.directory, iteration), run.recipe
    model, tokenizer = load_model(weights, dtype=recipe.weights.dtype), load_tokenizer(weights)
    executor = InProcess(recipe.env, LocalEngine(model, tokenizer, cache_bytes=recipe.engine.memory()))
    gaps: list[float] = []

    def ours() -> None:
        tasks = [tree.task for tree in forest]
        again = asyncio.run(executor.grow(tasks, recipe.growth, seed=forest.seed, iteration=iteration))
        if again != forest:
            raise SystemExit(
                f"{run.directory}: the forest came out differently; was it grown on one thread of this machine?"
            )

    def plain() -> None:
        worst = generate(model, tokenizer.eos_token_id, forest, recipe.sampling.temperature)
        if not worst < TOLERANCE[model.dtype]:
            raise SystemExit(f"generate's log-probabilities are off by {worst:.1e}: the engines did not do the same work")
        gaps.append(worst)

    ours()
    generate(model, tokenizer.eos_token_id, replace(forest, trees=forest.trees[:1]), recipe.sampling.temperature)
    seconds = alternate([ours, plain], repeats)
    nodes = [node for tree in forest for node in tree.nodes]
    spent, prompts = forest.spent, sum(len(node.prompt) for node in nodes)
    context = type(recipe.prompt.context).__name__
    baseline = statistics.median(seconds[1])
    for engine, prefilled, reused, laps in (
        ("spark-rl", spent.prefilled, spent.reused, seconds[0]),
        ("generate", prompts, 0, seconds[1]),
    ):
        middle = statistics.median(laps)
        print(
            f"| {context} | {engine} | {spent.generated:,} | {prefilled:,} | {reused:,} "
            f"| {middle:.2f} [{min(laps):.2f}, {max(laps):.2f}] | {baseline / middle:.1f}x |",
            flush=True,
        )
    print(f"largest difference of a log-probability: {max(gaps):.1e} ({model.dtype})", flush=True)


def alternate(actions: list[Callable[[], None]], repeats: int) -> list[list[float]]:
    """CPU-seconds of each action at each repeat, the actions taking turns."""
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(repeats):
        for action, laps in zip(actions, seconds, strict=True):
            start = time.process_time()
            action()
            laps.append(time.process_time() - start)
    return seconds


def replayable(run: Run) -> tuple[int, Path]:
    """The earliest forest whose weights are still there, and those weights."""
    for iteration in iterations(run.directory):
        weights = run.checkpoints / ("cold-start" if iteration == 1 else f"{iteration - 1:06d}")
        if weights.exists():
            return iteration, weights
    raise SystemExit(f"{run.directory} keeps no forest together with the checkpoint that grew it")


def grown(recipe: Recipe, directory: Path) -> Run:
    """A run directory with a cold start and its first forest."""
    run = Run.create(directory, recipe)
    with watching() as watcher:
        model, tokenizer = asyncio.run(prepare(run, watcher))
    executor = InProcess(recipe.env, LocalEngine(model, tokenizer, cache_bytes=recipe.engine.memory()))
    tasks = choose_tasks(recipe.env.tasks(recipe.level, "train"), recipe.tasks_per_iteration, seed=recipe.seed, iteration=1)
    run.save_forest(asyncio.run(executor.grow(tasks, recipe.growth, seed=recipe.seed, iteration=1)))
    return run


def describe(run: Run) -> str:
    """What was played, in a line."""
    forest = load_forest(run.directory, replayable(run)[0])
    nodes = [node for tree in forest for node in tree.nodes]
    leaves, forks = (sum(map(len, part)) for part in zip(*((t.leaves(), t.forks) for t in forest), strict=True))
    context = type(run.recipe.prompt.context).__name__
    return (
        f"{context}: {len(forest)} trees, {leaves} leaves, {forks} forks, {len(nodes)} steps; "
        f"mean prompt {sum(len(node.prompt) for node in nodes) / len(nodes):.0f} tokens, "
        f"completion {forest.spent.generated / len(nodes):.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run directory to take model and forest from")
    parser.add_argument("--model", help="pretrained model that plays as it comes")
    parser.add_argument("--recipe", default="alfworld-smollm", help="recipe of which --model grows a forest")
    parser.add_argument("--dtype", default="bfloat16", help="precision of --model")
    for option, value in (("tasks", 8), ("horizon", 0), ("repeats", 3), ("demonstrations", 150), ("seed", 0)):
        parser.add_argument(f"--{option}", type=int, default=value)
    args = parser.parse_args()
    horizon = args.horizon or (4 if args.model else 30)
    torch.set_num_threads(1)
    hush()
    with tempfile.TemporaryDirectory(prefix="spark-rl-rollout-") as scratch:
        runs = [Run.open(args.run)] if args.run else []
        if args.model:
            recipe = load_recipe(args.recipe)
            recipe = replace(
                recipe,
                model=args.model,
                weights=replace(recipe.weights, dtype=args.dtype),
                seed=args.seed,
                tasks_per_iteration=args.tasks,
                tree=replace(recipe.tree, roots=recipe.tree.budget, horizon=horizon),
                cold_start=replace(recipe.cold_start, demonstrations=0),
                threads=1,
            )
            runs.append(grown(recipe, Path(scratch) / "pretrained"))
        for context in () if args.run or args.model else (Window(), Transcript(repeat_task=True)):
            recipe = household()
            recipe = replace(
                recipe,
                seed=args.seed,
                tasks_per_iteration=args.tasks,
                tree=replace(recipe.tree, horizon=horizon),
                prompt=replace(recipe.prompt, context=context),
                cold_start=replace(recipe.cold_start, demonstrations=args.demonstrations, epochs=SHORT),
                threads=1,
            )
            runs.append(grown(recipe, Path(scratch) / type(context).__name__))
        print("\n".join(map(describe, runs)))
        print("\n| context | engine | generated | prefilled | reused | CPU-s, median [min, max] | speed |")
        print("|---" * 7 + "|", flush=True)
        for run in runs:
            measure(run, args.repeats)


if __name__ == "__main__":
    main()
