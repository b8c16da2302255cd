"""What ranks and one process both do, and the way to start ranks: `python ranked.py CASES FOLDER` under torchrun."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from exact import model
from grown import grown

from spark_rl.advantage.group import GroupMean
from spark_rl.branching.probability import Probability
from spark_rl.common.progress import Quiet
from spark_rl.common.ranks import ALONE
from spark_rl.config.recipe import ColdStart
from spark_rl.contracts import Ranks
from spark_rl.data.format import Demonstration
from spark_rl.data.pairs import Pair
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.learning.batch import Batch, pack
from spark_rl.learning.finetuning.dpo import learn
from spark_rl.learning.finetuning.sft import cold_start
from spark_rl.learning.held import Held
from spark_rl.learning.optimizer import trained
from spark_rl.learning.packing import Passes
from spark_rl.learning.trainer import train
from spark_rl.learning.update import recomputing, signal_to_noise, update
from spark_rl.models import adapters
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.models.weights import Weights
from spark_rl.objective.loss import Loss
from spark_rl.objective.preferences import Preferences
from spark_rl.objective.rewards import Rewards
from spark_rl.recipes.algorithms import ALGORITHMS
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.runs.run import Run

SHAPES = ([-1, 0, 0, 1, 2, 2], [-1, 0, 1, 1, 3], [-1, -1, 0, 1, 1], [-1, 0])
STEADY: dict[str, Any] = {
    "tasks_per_iteration": 3,
    "loss": Loss(kl=0.02, entropy=0.0),
    "optimizer": replace(tiny.RECIPE.optimizer, learning_rate=1e-5),  # no rounding is so large that it changes a token
    "keep": replace(tiny.RECIPE.keep, every=1),
}
"""Settings of a run whose trees do not depend on rounding, with a checkpoint of each iteration."""
STEP: dict[str, Any] = {"minibatches": 2, "max_grad_norm": 0.1}


def held(made: Any, ranks: Ranks) -> Held:
    """The model with its optimiser: whole, or in shards."""
    if ranks.count == 1:
        return Held(made, lr=1e-2, weight_decay=0.01)
    from spark_rl.learning.sharding import Shared

    return Shared(made, ranks, lr=1e-2, weight_decay=0.01)


def batch() -> Batch:
    """Four trees; a last one so small that not every rank has a part of each mini-batch."""
    trees = [grown(shape, append=True, seed=number) for number, shape in enumerate(SHAPES)]
    return pack(trees, [Rewards(malformed=0.4).credit(tree, GroupMean()) for tree in trees])


def updates(ranks: Ranks, *, lora: bool, packing: Any, recompute: bool) -> dict[str, Any]:
    """Three updates in 64 bits: divergence, clipping, two mini-batches, importance weights, and the noise of gradients."""
    made, frozen = model(), model(seed=1)
    if lora:
        adapters.add(made, Weights(lora_rank=2), seed=3)
        made.double()
    mine = held(made, ranks)
    reference = mine.model if lora else mine.frozen(frozen)
    passes, loss, stats = Passes(0.8, 120, packing, ranks), Loss(kl=0.05, entropy=0.01, importance=2.0), list[Any]()
    with recomputing(mine.model, recompute):
        noise = signal_to_noise(mine.model, batch(), loss, passes, parameters=trained(mine.optimizer))
        for number in range(3):
            stats.append(
                update(
                    mine.model,
                    reference,
                    mine.optimizer,
                    batch(),
                    loss,
                    passes,
                    **STEP,
                    rng=random.Random(number),
                )
            )
    mine.collect()
    return {
        "before": {name: value.clone() for name, value in model().state_dict().items()},
        "weights": {name: value.clone() for name, value in mine.whole.state_dict().items()},
        "moments": mine.optimizer.state_dict()["state"],
        "stats": stats,
        "noise": noise,
    }


def halves(ranks: Ranks) -> dict[str, Any]:
    """An update in 16 bits; the optimiser's state, and whether a new optimiser that loads it has the same."""
    mine = held(model(dtype=torch.bfloat16), ranks)
    update(mine.model, None, mine.optimizer, batch(), Loss(kl=0.0), Passes(0.8, 120, "tree", ranks), **STEP)
    mine.collect()
    state = mine.optimizer.state_dict()
    again = held(model(seed=2, dtype=torch.bfloat16), ranks)
    again.optimizer.load_state_dict(state)
    again.collect()
    return {
        "weights": mine.whole.state_dict(),
        "state": state,
        "again": again.optimizer.state_dict(),
        "weights again": again.whole.state_dict(),
    }


def fine_tuned(ranks: Ranks, folder: Path, **settings: Any) -> dict[str, Any]:
    """A cold start of a few steps from the model in the folder, in 32 bits."""
    made, tokenizer = load_model(folder / "start"), load_tokenizer(folder / "start")
    before = {name: value.clone() for name, value in made.state_dict().items()}
    demonstrations = [Demonstration(grown(shape, append=True, seed=number)) for number, shape in enumerate(SHAPES * 3)]
    told: list[float] = []
    stats = cold_start(
        made,
        tokenizer,
        demonstrations,
        ColdStart(demonstrations=12, epochs=2, learning_rate=1e-3, **settings),
        seed=4,
        advance=lambda step, total, loss: told.append(loss),
        ranks=ranks,
    )
    return {"before": before, "weights": made.state_dict(), "stats": [stats], "losses": told}


def preferred(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Learning from three pairs, so that one rank has two of them."""
    made, tokenizer = load_model(folder / "start"), load_tokenizer(folder / "start")
    before = {name: value.clone() for name, value in made.state_dict().items()}
    sides = [Demonstration(grown(shape, append=True, seed=number)) for number, shape in enumerate(SHAPES)]
    pairs = [Pair(sides[one], sides[other]) for one, other in ((0, 1), (2, 3), (1, 2))]
    told: list[float] = []
    stats = learn(
        made,
        tokenizer,
        pairs,
        Preferences(learning_rate=1e-3, epochs=2, batch=3),
        seed=1,
        advance=lambda step, total, loss: told.append(loss),
        ranks=ranks,
    )
    return {"before": before, "weights": made.state_dict(), "stats": [stats], "losses": told}


def forests(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Forests of rules that plan over all trees, of one whose trees compete in pools, and of the paper's."""
    from tiny import RECIPE

    found: dict[str, Any] = {}
    made, tokenizer = load_model(folder / "start"), load_tokenizer(folder / "start")
    for name in ("paper", "strategic", "strategic_chains", "hybrid", "pools"):
        recipe = replace(RECIPE, tasks_per_iteration=5)
        if name == "pools":
            recipe = replace(recipe, branching=Probability(0.1), tree=replace(recipe.tree, cap=6, pool=2))
        else:
            recipe = ALGORITHMS[name](recipe)
        executor = InProcess(recipe.env, LocalEngine(made, tokenizer, cache_bytes=10**8), ranks=ranks)
        forest = asyncio.run(executor.grow(recipe.env.tasks("L0", "train")[:5], recipe.growth, seed=5, iteration=1))
        spent = {key: value for key, value in asdict(forest.spent).items() if key not in ("seconds", "states_kept")}
        found[name] = {"trees": forest.trees, "spent": spent, "left": forest.left}
    return found


def trained_run(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """A run in the folder, from where it is to its end."""
    run = Run.open(folder)
    train(run, Quiet(None), ranks=ranks)
    return {}


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> float:
    """The distance of two models, as a share of how far the first has moved."""
    assert one.keys() == other.keys()
    gap = sum((one[name].double() - other[name].double()).square().sum() for name in one)
    moved = sum((one[name].double() - before[name].double()).square().sum() for name in one if name in before)
    return float((gap / moved).sqrt()) if moved else float(gap)


def sampled(tree: Any) -> Any:
    """All of a tree that is not a matter of rounding."""
    return (tree.task, tree.forks, [(node.parent, node.text, tuple(node.completion), node.reward) for node in tree.nodes])


Case = Callable[[Ranks, Path], dict[str, Any]]
CASES: dict[str, Case] = {
    "all": lambda ranks, _: updates(ranks, lora=False, packing="tree", recompute=False),
    "all rows recomputed": lambda ranks, _: updates(ranks, lora=False, packing="rows", recompute=True),
    "adapters": lambda ranks, _: updates(ranks, lora=True, packing="tree", recompute=True),
    "halves": lambda ranks, _: halves(ranks),
    "answers": lambda ranks, folder: fine_tuned(ranks, folder, batch=4),
    "one row": lambda ranks, folder: fine_tuned(ranks, folder, batch=1),
    "prompts": lambda ranks, folder: fine_tuned(ranks, folder, batch=4, prompt_weight=0.3),
    "pairs": preferred,
    "forests": forests,
    "run all": lambda ranks, folder: trained_run(ranks, folder / "all"),
    "run adapters": lambda ranks, folder: trained_run(ranks, folder / "adapters"),
}


def do(names: list[str], folder: Path, ranks: Ranks = ALONE) -> dict[str, dict[str, Any]]:
    """The results of some cases."""
    random.seed(0)
    np.random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return {name: CASES[name](ranks, folder) for name in names}


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "GLOO_SOCKET_IFNAME": "lo"}
SPARK_RL = [sys.executable, "-m", "spark_rl"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "spark_rl"]


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and error output of a process, when it has ended."""
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def begin(*words: object, by: list[str] = SPARK_RL) -> subprocess.Popen[str]:
    """Start a command."""
    return subprocess.Popen(
        [*by, *map(str, words)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def in_ranks(names: list[str], folder: Path, count: int = 2) -> dict[str, dict[str, Any]]:
    """The results of some cases in so many ranks of torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    words = [*torchrun, __file__, ",".join(names), str(folder)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / "results.pt", weights_only=False)


def main() -> None:
    """Do the cases as a rank."""
    from spark_rl.scale.group import joined

    names, folder = sys.argv[1].split(","), Path(sys.argv[2])
    with joined("cpu") as ranks:
        results = do(names, folder, ranks)
        if not ranks.rank:
            torch.save(results, folder / "results.pt")


if __name__ == "__main__":
    main()
