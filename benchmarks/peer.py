"""Beside a peer: whole iterations of spark-rl and of TRL's `GRPOTrainer` on one household world, in CPU-seconds.

    python benchmarks/peer.py --run RUN [--tasks 4] [--samples 8] [--horizon 20] [--iterations 3] [--evaluate 0]
        [--algorithms grpo paper] [--json OUT]

    TRL     `GRPOTrainer`: its `environment_factory` plays the world, `generate` samples
    grpo    spark-rl with independent trajectories: the same work, so this is the pair to compare
    paper   spark-rl with trees: as many leaves at most, whose first steps are shared

RUN is a run directory with a cold start (`spark-rl sft`); its model, world and prompts are used. All start from the same
weights and take turns, an iteration each, on one thread. The first iteration warms up and is not counted. An iteration is a
rollout (environment and prompts included) and one optimiser step. With --evaluate K the weights of each side play the
development tasks at the start, after every K iterations and at the end, always with our engine.

The same for all: weights and precision, tasks and their order, number of trajectories, horizon, tokens of an answer,
temperature; reward 1 for a success, compared within the group and divided by its deviation; mean over sampled tokens, clip
0.2, no divergence, no entropy, no penalties, AdamW without weight decay. Groups without signal are trained on, too. TRL's
environment writes its words with our prompt and reads answers with our parser, so that the tokens of equal trajectories are
equal, and so are their gradients (`tests/benchmarks/test_peer.py`).

What differs, and why
---------------------
* Tools. TRL's environment speaks in answers of tools, our prompts in turns of the user. TRL's tokenizer therefore gets a
  chat template that writes an answer of a tool as a turn of the user, and a `parse_response` that reads every answer,
  whatever it says, as one call of the tool `act`. The latter also spares TRL decoding the whole prompt at each turn.
* The end. TRL goes on until the model calls no tool. An episode that is over therefore answers with more text than a
  trajectory may hold. TRL drops such an answer and ends the trajectory.
* Cut answers. An answer that is cut at the token limit gets its end of turn in our transcripts and none in TRL's. After the
  cold start hardly any answer is cut.
* Ratio. TRL divides by its own log-probabilities (its ratio is exactly 1), spark-rl by those of the rollout.
* Precision. TRL trains a model in bfloat16 in bfloat16 alone, which spares it casts; spark-rl updates 32-bit copies.
* Chance. Each side samples with its own seeds, so trajectories differ, and with them the number of tokens. The table
  therefore also has the seconds of an iteration for a thousand sampled tokens.

What TRL is given: all trajectories in one batch of `generate`; nothing logged, saved, evaluated or computed twice; 8 rows in
a backward pass (--rows), its fastest number at 0.4 M parameters. Its continuous batching took 12 times as long on a CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from peer_trl import Lap, Turns, chosen, trainer_of
from transformers import PreTrainedModel

from spark_rl.advantage.group import GroupMean
from spark_rl.commands.base import hush
from spark_rl.common.files import write_json
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import ModelState
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.evaluation.play import measure
from spark_rl.learning.learner import LocalLearner
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.objective.loss import Loss
from spark_rl.objective.rewards import Rewards
from spark_rl.prompting.transcript import Transcript
from spark_rl.recipes.algorithms import with_algorithm
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.runs.checkpoints import model_folder
from spark_rl.runs.run import Run

PEER, ALGORITHMS = "TRL", ("grpo", "paper")


def settings(recipe: Recipe, *, tasks: int, samples: int, horizon: int) -> Recipe:
    """The run's recipe with what both sides can do: see the head of this file."""
    if not isinstance(recipe.prompt.context, Transcript):
        raise SystemExit("TRL continues one conversation, so the run needs --prompt.context Transcript")
    return replace(
        recipe,
        tasks_per_iteration=tasks,
        tree=replace(recipe.tree, budget=samples, roots=samples, horizon=horizon or recipe.tree.horizon, cap=0),
        advantage=GroupMean(),
        rewards=Rewards(malformed=0.0, inadmissible=0.0),
        loss=Loss(kl=0.0, entropy=0.0, dual_clip=0.0),
        optimizer=replace(recipe.optimizer, weight_decay=0.0, minibatches=1, epochs=1, without_signal="keep", resample=0),
        threads=1,
    )


# -- spark-rl -----------------------------------------------------------------------------------------------------------


class Ours:
    """Iterations of spark-rl, as `learning.trainer` has them, under a clock."""

    def __init__(self, recipe: Recipe, folder: Path, out: Path) -> None:
        """Start from the model in `folder`; `out` becomes a run directory."""
        self.recipe = recipe
        model, tokenizer = load_model(folder, device="cpu", dtype=recipe.weights.dtype), load_tokenizer(folder)
        self.learner = LocalLearner(Run.create(out, recipe), model, tokenizer)
        self.learner.load(None)
        self.executor = InProcess(recipe.env, LocalEngine(model, tokenizer, cache_bytes=recipe.engine.memory()))

    def iteration(self, number: int) -> Lap:
        """A rollout and an update."""
        recipe, tasks = self.recipe, chosen(self.recipe, number)
        start = time.process_time()
        forest = asyncio.run(self.executor.grow(tasks, recipe.growth, seed=recipe.seed, iteration=number))
        middle = time.process_time()
        stats = self.learner.update(forest.trees, number)
        asyncio.run(self.executor.load_weights(self.learner.version, self.learner.weights()))
        end = time.process_time()
        ends = [tree.nodes[leaf] for tree in forest for leaf in tree.leaves()]
        return Lap(
            rollout=middle - start,
            update=end - middle,
            trajectories=len(ends),
            steps=sum(len(tree.nodes) for tree in forest),
            wins=sum(node.success for node in ends),
            prefilled=forest.spent.prefilled,
            reused=forest.spent.reused,
            generated=forest.spent.generated,
            trained=int(stats["trained"]),
        )


class Judge:
    """Plays the development tasks with any side's weights, always in the same way."""

    def __init__(self, recipe: Recipe, folder: Path, tasks: int) -> None:
        self.recipe, self.tokenizer = recipe, load_tokenizer(folder)
        self.model: PreTrainedModel = load_model(folder, device="cpu", dtype=recipe.weights.dtype)
        self.tasks = recipe.env.tasks(recipe.evaluation.dev_level, "dev")[:tasks]

    def success(self, weights: ModelState | None = None) -> float:
        """The share of the tasks that are solved; without weights, by the model as it was."""
        if weights is not None:
            self.model.load_state_dict(weights)
        engine = LocalEngine(self.model, self.tokenizer, cache_bytes=self.recipe.engine.memory())
        return asyncio.run(measure(InProcess(self.recipe.env, engine), self.recipe, self.tasks)).success


# -- both ---------------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """All iterations of all sides, the warm-up first, and the success on development tasks by iteration."""

    laps: dict[str, list[Lap]]
    success: dict[str, dict[int, float]]


def compare(
    recipe: Recipe,
    folder: Path,
    scratch: Path,
    *,
    iterations: int,
    rows: int,
    algorithms: Sequence[str] = ALGORITHMS,
    evaluate: int = 0,
    judged: int = 60,
) -> Result:
    """Let all sides take turns.

    Args:
        recipe: from `settings`.
        folder: the model that all start from.
        scratch: an empty folder.
        iterations: measured iterations of each side, beside one to warm up.
        rows: trajectories in TRL's backward pass.
        algorithms: those of spark-rl.
        evaluate: iterations between evaluations; 0 for none.
        judged: development tasks of an evaluation.
    """
    ours = {name: Ours(with_algorithm(recipe, name), folder, scratch / name) for name in algorithms}
    result = Result({side: [] for side in (PEER, *ours)}, {side: {} for side in (PEER, *ours)})
    judge = Judge(recipe, folder, judged) if evaluate else None
    if judge:
        before = judge.success()
        result.success = {side: {0: before} for side in result.success}

    def after(lap: Lap, weights: ModelState) -> None:
        result.laps[PEER].append(lap)
        number = len(result.laps[PEER])
        for name, side in ours.items():
            result.laps[name].append(side.iteration(number))
        if judge and (number % evaluate == 0 or number == iterations + 1):
            for name, state in ((PEER, weights), *((name, side.learner.weights()) for name, side in ours.items())):
                result.success[name][number] = judge.success(state)

    turns = Turns(after)
    trainer_of(with_algorithm(recipe, "grpo"), folder, iterations + 1, rows, turns, scratch / "trl").train()
    return result


COLUMNS: dict[str, tuple[Callable[[Lap], float], str]] = {
    "rollout, CPU-s": (lambda lap: lap.rollout, ".2f"),
    "update": (lambda lap: lap.update, ".2f"),
    "iteration": (lambda lap: lap.seconds, ".2f"),
    "a thousand sampled": (lambda lap: 1000 * lap.seconds / lap.generated, ".3f"),
    "prompt tokens read": (lambda lap: lap.prefilled, ",.0f"),
    "reused": (lambda lap: lap.reused, ",.0f"),
    "sampled": (lambda lap: lap.generated, ",.0f"),
    "... a CPU-s of rollout": (lambda lap: lap.generated / lap.rollout, ",.0f"),
    "trained": (lambda lap: lap.trained, ",.0f"),
    "... a CPU-s of update": (lambda lap: lap.trained / max(lap.update, 1e-9), ",.0f"),
    "leaves": (lambda lap: lap.trajectories, ",.0f"),
    "steps": (lambda lap: lap.steps, ",.0f"),
    "won": (lambda lap: lap.wins, ",.0f"),
}
RATIOS = ("rollout, CPU-s", "update", "iteration", "a thousand sampled")
"""Columns that also show the share of TRL's number."""


def table(result: Result) -> list[str]:
    """Medians over the measured iterations, as lines of markdown."""
    lines = ["| side | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    base: dict[str, float] = {}
    for side, laps in result.laps.items():
        medians = {name: statistics.median(value(lap) for lap in laps[1:]) for name, (value, _) in COLUMNS.items()}
        base = base or medians
        cells = [
            f"{medians[name]:{form}}" + (f" ({medians[name] / base[name]:.2f}x)" if name in RATIOS else "")
            for name, (_, form) in COLUMNS.items()
        ]
        lines.append("| " + " | ".join([side, *cells]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory with a cold start and the recipe to play")
    for option, value in (("tasks", 4), ("samples", 8), ("horizon", 0), ("iterations", 3), ("rows", 8), ("seed", 0)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, help="algorithms of spark-rl that take part")
    parser.add_argument("--evaluate", type=int, default=0, help="iterations between evaluations; 0: none")
    parser.add_argument("--judged", type=int, default=60, help="development tasks of an evaluation")
    parser.add_argument("--json", type=Path, help="file for the figures of all iterations")
    args = parser.parse_args()
    torch.set_num_threads(1)
    hush()
    run = Run.open(args.run)
    recipe = settings(replace(run.recipe, seed=args.seed), tasks=args.tasks, samples=args.samples, horizon=args.horizon)
    folder = Path(model_folder(args.run, "cold-start"))
    with tempfile.TemporaryDirectory(prefix="spark-rl-peer-") as scratch:
        names = ("iterations", "rows", "algorithms", "evaluate", "judged")
        result = compare(recipe, folder, Path(scratch), **{name: getattr(args, name) for name in names})
    print("\n".join(table(result)))
    for side, curve in result.success.items():
        if curve:
            print(f"{side}: " + ", ".join(f"{success:.3f} after {number}" for number, success in curve.items()))
    if args.json:
        asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        write_json(args.json, {"asked": asked, **asdict(result)})


if __name__ == "__main__":
    main()
