"""What training a shared step once saves: rows, tokens and CPU-seconds of one gradient on one forest, three ways.

    node once       each step in one row (spark_rl.learning.batch.pack)
    row a leaf      each trajectory on its own, shared steps copied
    row a step      each step of each trajectory on its own, its prompt read again

All three give the same gradient; the last column is the relative difference. With --forest, a run's last forest and newest
weights are used. Without, the forest is synthetic (forks after random steps, every trajectory as long as the horizon), and
the model is one of 0.2 M parameters with random weights.

    python benchmarks/update.py [--forest RUN] [--tasks 8] [--fork 0.05] [--threads 1]
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from spark_rl.advantage.group import GroupMean
from spark_rl.commands.base import hush
from spark_rl.learning.batch import Batch, pack
from spark_rl.learning.update import accumulate
from spark_rl.models.load import load_model
from spark_rl.objective.loss import Loss
from spark_rl.objective.rewards import Rewards
from spark_rl.runs.checkpoints import model_folder
from spark_rl.runs.forests import load_forest
from spark_rl.runs.run import Run
from spark_rl.types import Node, Task, Tree

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


def batches(trees: list[Tree]) -> dict[str, Batch]:
    """The three packings, by name."""
    rewards, estimator = Rewards(), GroupMean()
    apart = [unshared(tree) for tree in trees]
    copied = [rewards.credit(tree, estimator) for tree in apart]
    single = [replace(tree, nodes=[replace(node, parent=-1) for node in tree.nodes]) for tree in apart]  # nothing to extend
    return {
        "node once": pack(trees, [rewards.credit(tree, estimator) for tree in trees]),
        "row a leaf": pack(apart, copied),
        "row a step": pack(single, copied),
    }


def random_model() -> Any:
    """A small model for the synthetic forest."""
    shape: dict[str, Any] = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=512, num_key_value_heads=2, **shape)).eval()


def measure(context: str, model: Any, trees: list[Tree], token_budget: int, temperature: float = 1.0) -> None:
    """Print a line a packing."""

    def gradient(batch: Batch) -> torch.Tensor:
        model.zero_grad()
        accumulate(model, None, batch, Loss(kl=0), temperature=temperature, token_budget=token_budget)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])

    packed = batches(trees)
    once = gradient(packed["node once"])  # also the warm-up
    base = 0.0
    for packing, batch in packed.items():
        start = time.process_time()
        apart = ((gradient(batch) - once).norm() / once.norm()).item()
        seconds = time.process_time() - start
        base = base or seconds
        print(
            f"{context:<11} {packing:<11} {len(batch.rows):>6} {batch.tokens:>9} {batch.sampled:>8} "
            f"{seconds:>7.2f} {seconds / base:>6.2f}x {apart:>9.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forest", help="run directory whose last forest to use")
    parser.add_argument("--fork", type=float, default=0.05, help="chance that a step forks")
    for option, value in (("tasks", 8), ("seed", 0), ("threads", 1), ("token-budget", 8192)):
        parser.add_argument(f"--{option}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    hush()
    print("context     packing       rows    tokens  sampled   CPU-s   ratio  gradient")
    if args.forest:
        recipe, model = Run.open(Path(args.forest)).recipe, load_model(model_folder(args.forest))
        context = type(recipe.prompt.context).__name__.lower()
        measure(context, model, load_forest(args.forest).trees, args.token_budget, recipe.sampling.temperature)
        return
    for name, append in (("window", False), ("transcript", True)):
        rng = random.Random(args.seed)
        measure(name, random_model(), [synthetic(rng, append, args.fork) for _ in range(args.tasks)], args.token_budget)


if __name__ == "__main__":
    main()
