"""What training each token once saves: tokens and CPU-seconds of one gradient on one forest, four ways.

    token once      what rows start with together is read once (`optimizer.packing tree`)
    node once       each step in one row, rows padded (`optimizer.packing rows`)
    row a leaf      each trajectory on its own, shared steps copied
    row a step      each step of each trajectory on its own, its prompt read again

All ways give the same gradient; the last column is the relative difference to the first way. `tokens` are those of the rows,
`cells` those with padding, `read` those that go through the model without padding. `time` is against node once; `/share` is
that ratio over read / tokens, `/cells` over read / cells: 1 where a token costs as much in a tree as in a row. CPU-seconds
are medians, the ways taking turns.

With --forest, a run's last forest and newest weights are used. With --model, the forests are those of real worlds, grown by
an expert that errs and written as the recipe `household` writes its prompts; only the first two ways are measured. Without
both, the forest is synthetic (forks after random steps, every trajectory as long as the horizon), and the model is one of
0.2 M parameters with random weights.

    python benchmarks/update.py [--forest RUN] [--tasks 8] [--fork 0.05] [--threads 1]
    python benchmarks/update.py --model DIR [--dtype bfloat16] [--worlds household alfworld webshop] [--window] [--full]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from spark_rl.advantage.group import GroupMean
from spark_rl.commands.base import hush
from spark_rl.data.demonstrations import tokenize
from spark_rl.learning.batch import Batch, pack
from spark_rl.learning.packing import Packing, Passes, microbatches
from spark_rl.learning.update import accumulate, recomputing, trainer_logprobs
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.objective.loss import Loss
from spark_rl.objective.rewards import Rewards
from spark_rl.policies.scripted import Slips
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.recipes import load_recipe
from spark_rl.recipes.algorithms import with_algorithm
from spark_rl.rollout.grow import grow_forest
from spark_rl.runs.checkpoints import model_folder
from spark_rl.runs.forests import load_forest
from spark_rl.runs.run import Run
from spark_rl.types import Node, Task, Tree

SLIPS = 0.3
"""Share of the expert's steps that are mistakes: without any, all leaves of a tree would be the same."""
WAYS: tuple[tuple[str, Packing], ...] = (
    ("token once", "tree"),
    ("node once", "rows"),
    ("row a leaf", "rows"),
    ("row a step", "rows"),
)
PROMPT, COMPLETION, OBSERVATION = 90, 12, 20  # tokens
LEAVES, ROOTS, HORIZON = 8, 4, 20


def synthetic(rng: random.Random, append: bool, fork: float) -> Tree:
    """A tree whose steps fork with a fixed probability until the leaves are spent."""

    def draw(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(1, 512) for _ in range(count))

    tree, opened = Tree(Task("synthetic", "", ""), ""), ROOTS
    first = draw(PROMPT)
    frontier = [(-1, (number,), first) for number in range(ROOTS)]
    while frontier:
        parent, path, prompt = frontier.pop(0)
        completion, last = draw(COMPLETION), len(path) == HORIZON
        reward = float(last and rng.random() < 0.5)
        logprobs = tuple(rng.gauss(-6.2, 0.3) for _ in completion)
        # From the text to the success flag only the reward matters here.
        rest = ("", None, "", "", True, True, "", "", (), reward, last, reward > 0)
        tree.nodes.append(Node(parent, path, prompt, completion, logprobs, *rest))
        if last:
            continue
        width = 2 if opened < LEAVES and rng.random() < fork else 1
        opened += width - 1
        following = prompt + completion + draw(OBSERVATION) if append else draw(PROMPT)
        frontier += [(len(tree.nodes) - 1, (*path, child), following) for child in range(width)]
    return tree


def unshared(tree: Tree) -> Tree:
    """The same trajectories with a copy of every shared step."""
    copy = Tree(tree.task, tree.observation)
    for leaf in tree.leaves():
        for depth, index in enumerate(tree.trajectory(leaf)):
            copy.nodes.append(replace(tree.nodes[index], parent=len(copy.nodes) - 1 if depth else -1))
    return copy


def batches(trees: list[Tree]) -> list[Batch]:
    """The batch of each of `WAYS`."""
    rewards, estimator = Rewards(), GroupMean()
    apart = [unshared(tree) for tree in trees]
    copied = [rewards.credit(tree, estimator) for tree in apart]
    single = [replace(tree, nodes=[replace(node, parent=-1) for node in tree.nodes]) for tree in apart]  # nothing to extend
    once = pack(trees, [rewards.credit(tree, estimator) for tree in trees])
    return [once, once, pack(apart, copied), pack(single, copied)]


def real(world: str, tokenizer: Any, context: Transcript | Window, full: bool, algorithm: str, tasks: int) -> list[Tree]:
    """Trees of a world, grown by an expert that errs, with the token ids that the model would read and say."""
    recipe = with_algorithm(load_recipe(world), algorithm)
    prompt = Prompt(context, instructions="full" if full else "none", list_actions=full, limit=8000)
    growth = replace(recipe.growth, prompt=prompt)
    policy = Slips(recipe.env.expert("sparse"), SLIPS)  # type: ignore[attr-defined]  worlds with an expert only
    chosen = recipe.env.tasks("L0", "test")[:tasks]
    forest = asyncio.run(grow_forest(chosen, recipe.env, policy, growth, seed=0))
    return [tokenize(tree, prompt, ChatEncoder(tokenizer)) for tree in forest]


def random_model() -> Any:
    """A small model for the synthetic forest."""
    shape: dict[str, Any] = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=512, num_key_value_heads=2, **shape)).eval()


def measure(
    name: str,
    model: Any,
    trees: list[Tree],
    args: argparse.Namespace,
    temperature: float = 1.0,
    ways: Sequence[int] = range(4),
) -> None:
    """Print a line a way.

    With --model, which did not sample the trees, they get its log-probabilities first, in the same way: the gradient of one
    way at the ratios of the other would measure the rounding of the ratios.
    """
    packed = batches(trees)
    passes = [Passes(temperature, args.token_budget, packing) for _, packing in WAYS]
    if args.model:
        for way in ways:
            packed[way] = trainer_logprobs(model, packed[way], passes[way])

    def gradient(way: int) -> torch.Tensor:
        model.zero_grad()
        loss = Loss(kl=0, entropy=0)
        with recomputing(model, args.checkpointing):
            accumulate(model, None, packed[way], loss, passes[way])
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])

    expected = gradient(0)  # also the warm-up
    apart, seconds = [0.0] * len(WAYS), [[0.0][:0] for _ in WAYS]
    for _ in range(args.repeats):
        for way in ways:
            start = time.process_time()
            found = gradient(way)
            seconds[way].append(time.process_time() - start)
            apart[way] = ((found - expected).float().norm() / expected.float().norm()).item()
    base, tokens = statistics.median(seconds[1]), packed[1].tokens
    cells = sum(micro.tokens.size for micro in microbatches(packed[1], args.token_budget, "rows"))
    for way in ways:
        micros = list(microbatches(packed[way], args.token_budget, WAYS[way][1]))
        read, ratio = sum(micro.size for micro in micros), statistics.median(seconds[way]) / base
        print(
            f"{name:<22} {WAYS[way][0]:<10} {len(packed[way].rows):>5} {packed[way].tokens:>8} "
            f"{sum(micro.tokens.size for micro in micros):>8} {read:>8} {packed[way].sampled:>7} "
            f"{statistics.median(seconds[way]):>7.2f} {read / tokens:>6.3f} {ratio:>6.3f} {ratio / (read / tokens):>6.2f} "
            f"{ratio / (read / cells):>6.2f} {apart[way]:>8.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forest", help="run directory whose last forest to use")
    parser.add_argument("--model", help="model directory, for forests of real worlds")
    parser.add_argument("--dtype", default="auto", help="precision of that model")
    parser.add_argument("--worlds", nargs="+", default=["household", "alfworld", "webshop"])
    parser.add_argument("--algorithm", default="paper")
    parser.add_argument("--window", action="store_true", help="a new prompt for each step, instead of transcripts")
    parser.add_argument("--full", action="store_true", help="prompts with instructions and lists of actions")
    parser.add_argument("--checkpointing", action="store_true", help="layers are computed twice, for less memory")
    parser.add_argument("--fork", type=float, default=0.05, help="chance that a step forks")
    for option, value in (("tasks", 8), ("seed", 0), ("threads", 1), ("token-budget", 8192), ("repeats", 1)):
        parser.add_argument(f"--{option}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    hush()
    print(
        f"{'forest':<22} {'way':<10} {'rows':>5} {'tokens':>8} {'cells':>8} {'read':>8} {'sampled':>7} {'CPU-s':>7} "
        f"{'share':>6} {'time':>6} {'/share':>6} {'/cells':>6} {'gradient':>8}"
    )
    if args.forest:
        recipe, model = Run.open(Path(args.forest)).recipe, load_model(model_folder(args.forest))
        name = type(recipe.prompt.context).__name__.lower()
        measure(name, model, load_forest(args.forest).trees, args, recipe.sampling.temperature)
    elif args.model:
        model, tokenizer = load_model(args.model, dtype=args.dtype), load_tokenizer(args.model)
        context = Window() if args.window else Transcript()
        for world in args.worlds:
            trees = real(world, tokenizer, context, args.full, args.algorithm, args.tasks)
            measure(f"{world} {args.algorithm}", model, trees, args, ways=(0, 1))
    else:
        for name, append in (("window", False), ("transcript", True)):
            rng = random.Random(args.seed)
            measure(name, random_model(), [synthetic(rng, append, args.fork) for _ in range(args.tasks)], args)


if __name__ == "__main__":
    main()
