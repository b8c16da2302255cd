# pyright: standard
"""The training loop: grow a forest, credit it, update, log. Blind to the algorithm, which is the recipe's components.

Invariants
----------
* Calling `train` on a run does what is not done yet, so that resuming *is* calling it again; a resumed run gives the
  numbers of an uninterrupted one.
* Each iteration has one row in the log: it is written before the checkpoint, and what was logged after the checkpoint
  that a run is resumed from is forgotten and done again.
* A loss that is not finite, or a divergence beyond `optimizer.max_kl`, stops the run before it is checkpointed: an update
  that went too far is measured at its end, so that every checkpoint is a good one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from spark_rl.common.seeding import derive
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Watcher
from spark_rl.data.leaks import refuse_held_out
from spark_rl.errors import TrainingDiverged
from spark_rl.evaluation.play import measure
from spark_rl.learning import dynamic_sampling, memory
from spark_rl.learning.batch import Batch, pack
from spark_rl.learning.optimizer import adamw, trained
from spark_rl.learning.prepare import prepare, set_threads
from spark_rl.learning.update import recomputing, signal_to_noise, trainer_logprobs, update
from spark_rl.models import adapters
from spark_rl.models.load import load_model
from spark_rl.objective.loss import LOG_RATIO_LIMIT
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.rollout.metrics import summarise
from spark_rl.runs import checkpoints
from spark_rl.runs.run import Run
from spark_rl.runs.trackers import Mirror, mirrors
from spark_rl.types import Credit, Forest, Task, Tree

__all__ = ["has_signal", "train"]

MEASURED = 4
"""One row in so many tells how far an update went: a few hundredths of the update's time."""


def train(run: Run, watcher: Watcher) -> None:
    """Bring a run to its end: cold start, evaluation, all iterations, evaluation.

    Raises:
        TrainingDiverged: training became unstable; the last good checkpoint is kept.
        SparkError: whatever a user can mend.
    """
    with mirrors(run) as copies:
        refuse_held_out(run, run.recipe.evaluation.levels, run.recipe.env)
        watcher.note(f"memory: {memory.check(run.recipe).total / 1e9:.1f} GB at most")
        set_threads(run, watcher)
        model, tokenizer = prepare(run, watcher)
        if run.recipe.weights.lora_rank:
            adapters.add(model, run.recipe.weights, seed=derive(run.recipe.seed, "adapters") % 2**63)
        executor = InProcess(model, tokenizer, run.recipe.env, cache_gb=run.recipe.engine.cache_gb)
        session = _Session(run, watcher, model, executor, copies)
        session.evaluate_levels("before")
        session.iterate(tokenizer)
        session.evaluate_levels("after")


def has_signal(credit: Credit) -> bool:
    """Whether any trajectory of the tree did better or worse than its group."""
    return any(credit.positive) or any(credit.negative)


@dataclass
class _Session:
    """What one call of `train` works with."""

    run: Run
    watcher: Watcher
    model: Any
    executor: InProcess
    copies: Sequence[Mirror]

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    # -- the loop ---------------------------------------------------------------------------------------------------

    def iterate(self, tokenizer: Any) -> None:
        recipe, settings = self.recipe, self.recipe.optimizer
        optimizer = adamw(self.model, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        done = self._resume(optimizer)
        reference = self._reference() if recipe.loss.kl and done < recipe.iterations else None
        tasks = recipe.env.tasks(recipe.level, "train")
        self.watcher.phase("train", recipe.iterations, done)
        for iteration in range(done + 1, recipe.iterations + 1):
            try:
                row = self._iteration(iteration, tasks, reference, optimizer)
            except TrainingDiverged as error:
                raise TrainingDiverged(
                    f"iteration {iteration}: {error} (optimizer.learning_rate in {self.run.directory}/recipe.json), then go "
                    f"on from the last good checkpoint with --resume {self.run.directory}"
                ) from error
            every = recipe.evaluation.every
            if every and (iteration % every == 0 or iteration == recipe.iterations):
                row |= self._development()
            self.run.log(row)
            for copy in self.copies:
                copy.log(row)
            self._keep(iteration, row.get("dev_success"), tokenizer, optimizer)
            self.watcher.iteration(row)

    def _reference(self) -> Any:
        """The frozen cold start: the trained model itself where its adapters can be switched off, else a second one."""
        weights = self.recipe.weights
        if weights.lora_rank:
            return self.model
        return load_model(self.run.checkpoints / "cold-start", device=weights.device, dtype=weights.dtype)

    def _keep(self, iteration: int, success: float | None, tokenizer: Any, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint when one is due, at the end, and of the best on the development slice."""
        folder, keep = self.run.checkpoints, self.recipe.keep
        top = checkpoints.best(folder)
        leads = success is not None and (top is None or success > top[1])
        if leads or iteration % keep.every == 0 or iteration == self.recipe.iterations:
            checkpoints.save(folder, iteration, self.model, tokenizer, optimizer, success=success)
            checkpoints.prune(folder, keep.checkpoints)

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest checkpoint, if any; returns how many iterations are done."""
        path = checkpoints.latest(self.run.checkpoints)
        done = 0
        if path is None:
            set_seed(derive(self.recipe.seed, "training") % 2**32)  # checkpoints hold these states, whatever ran before
        else:
            if adapters.holds_adapters(path):
                adapters.restore(self.model, path)
            else:
                self.model.load_state_dict(load_model(path, device="cpu").state_dict())
            self.executor.load_weights()
            done = checkpoints.load_training(path, optimizer)
            self.watcher.note(f"continuing after iteration {done}")
        self.run.rewind(done)
        return done

    def _iteration(
        self, iteration: int, tasks: Sequence[Task], reference: Any, optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        recipe, started = self.recipe, time.perf_counter()
        forest = asyncio.run(dynamic_sampling.grow(self.executor, tasks, recipe, iteration, self._has_signal))
        self.run.save_forest(forest)
        row = {"iteration": float(iteration), **summarise(forest, recipe.tree.budget)}
        row |= self._learn(forest, iteration, reference, optimizer)
        self.executor.load_weights()
        return row | {"seconds": time.perf_counter() - started}

    def _learn(self, forest: Forest, iteration: int, reference: Any, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Credit the trees and update the policy on those that have something to say."""
        recipe, settings, started = self.recipe, self.recipe.optimizer, time.perf_counter()
        trees = [tree for tree in forest if settings.without_signal == "keep" or self._has_signal(tree)]
        if not trees:
            self.watcher.note(
                f"iteration {iteration}: in no tree did one trajectory do better than another; nothing is learnt"
            )
            return {"trained": 0.0, "trained_groups": 0.0}
        batch = pack(trees, [recipe.rewards.credit(tree, recipe.advantage) for tree in trees])
        noise = {"gradient_snr": self._noise(batch, optimizer)} if settings.measure_noise else {}
        with recomputing(self.model, recipe.weights.checkpointing):
            stats = update(
                self.model,
                reference,
                optimizer,
                batch,
                recipe.loss,
                temperature=recipe.sampling.temperature,
                minibatches=settings.minibatches,
                token_budget=settings.token_budget,
                max_grad_norm=settings.max_grad_norm,
                epochs=settings.epochs,
                rng=random.Random(derive(recipe.seed, iteration, "minibatches")),
            )
        stats["kl"] = self._moved(batch)
        self._check(stats)
        return {
            **noise,
            **{f"update_{name}": value for name, value in stats.items()},
            "trained": stats["trained_tokens"],
            "trained_groups": float(len(trees)),
            "seconds_update": time.perf_counter() - started,
        }

    def _has_signal(self, tree: Tree) -> bool:
        """Penalties alone are no signal: they would teach form on groups that say nothing about the task."""
        return has_signal(self.recipe.advantage(self.recipe.rewards.shape(tree)))

    def _noise(self, batch: Batch, optimizer: torch.optim.Optimizer) -> float:
        recipe = self.recipe
        with recomputing(self.model, recipe.weights.checkpointing):
            return signal_to_noise(
                self.model,
                batch,
                recipe.loss,
                temperature=recipe.sampling.temperature,
                token_budget=recipe.optimizer.token_budget,
                parameters=trained(optimizer),
            )

    def _moved(self, batch: Batch) -> float:
        """How far the update went: mean divergence of the sampler from the new policy, on some rows it learnt from."""
        recipe, some = self.recipe, batch.select(range(0, len(batch.rows), MEASURED))
        budget = recipe.optimizer.token_budget
        new = trainer_logprobs(self.model, some, temperature=recipe.sampling.temperature, token_budget=budget).flat()
        gap = np.minimum(new.old - new.sampling, LOG_RATIO_LIMIT)
        return float(np.average(np.minimum(np.exp(gap) - gap - 1, recipe.loss.kl_clamp), weights=new.weight))

    def _check(self, stats: dict[str, float]) -> None:
        limit = self.recipe.optimizer.max_kl
        for name in ("reference_kl", "old_kl", "kl"):
            if not stats[name] <= limit:
                raise TrainingDiverged(
                    f"the update's {name} {stats[name]:.3f} exceeds optimizer.max_kl {limit}; lower the learning rate"
                )

    # -- evaluation -------------------------------------------------------------------------------------------------

    def _evaluate(self, tasks: Sequence[Task], advance: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
        return asyncio.run(measure(self.executor, self.recipe, tasks, advance))

    def _development(self) -> dict[str, float]:
        """The development slice: part of no test split, so that looking at it often costs nothing."""
        tasks = self.recipe.env.tasks(self.recipe.evaluation.dev_level, "dev")
        result = self._evaluate(tasks[: self.recipe.evaluation.dev_tasks or None])
        return {f"dev_{name}": result[name] for name in ("success", "low", "high", "steps", "invalid_ratio")}

    def evaluate_levels(self, moment: str) -> None:
        """Every test task of every level once; skipped when the run already holds the result."""
        if moment in self.run.evaluations():
            return
        results: dict[str, Any] = {}
        for level in self.recipe.evaluation.levels:
            tasks = self.recipe.env.tasks(level, "test")
            self.watcher.phase(f"evaluate {level} {moment}", len(tasks))
            results[level] = self._evaluate(tasks, self.watcher.advance)
        self.run.save_evaluation(moment, results)
