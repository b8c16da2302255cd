"""The learner in this process: one model, its optimiser, and the update on a forest. Ranks are one learner together.

Invariants
----------
* A learner that resumes from a checkpoint gives the same numbers as one that was never interrupted.
* The divergence of each update is measured at its end. If it is too large, the update raises before anything is saved, so
  no checkpoint holds a diverged policy.
* Groups without signal are left out, unless the recipe keeps them.
* Several ranks share one model (`sharding`): each has the same trees, makes the same choices, and reads its part of each
  mini-batch. Their checkpoint is that of one process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import set_seed

from spark_rl.common.ranks import ALONE
from spark_rl.common.seeding import derive
from spark_rl.config.recipe import Optimizer
from spark_rl.contracts import LanguageModel, ModelState, Ranks, Tokenizer
from spark_rl.engines.local.settings import Local
from spark_rl.errors import TrainingDiverged
from spark_rl.learning.batch import Batch, pack
from spark_rl.learning.held import Held
from spark_rl.learning.optimizer import trained
from spark_rl.learning.packing import Packing, Passes
from spark_rl.learning.update import recomputing, signal_to_noise, trainer_logprobs, update
from spark_rl.models import adapters
from spark_rl.models.load import load_model
from spark_rl.models.tree_attention import obstacle
from spark_rl.objective.loss import LOG_RATIO_LIMIT, Targets
from spark_rl.runs import checkpoints
from spark_rl.runs.run import Run
from spark_rl.types import Credit, Tree

__all__ = ["LocalLearner", "divergence", "has_signal", "rollout_gap"]

MEASURED = 4
"""The divergence of an update is measured on one row in this many, which takes a few hundredths of the update's time."""
CAP = 2.0
"""Cap of the importance weight of an update whose engine is not trusted (`Loss.trusted_gap`)."""


def has_signal(credit: Credit) -> bool:
    """Whether any trajectory of a tree was better or worse than its group."""
    return any(credit.positive) or any(credit.negative)


class LocalLearner:
    """Trains a model in this process; fulfils `contracts.Learner`."""

    def __init__(
        self,
        run: Run,
        model: LanguageModel,
        tokenizer: Tokenizer,
        tell: Callable[[str], None] = lambda _: None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Take over a cold-started model, and add new adapters if the recipe trains adapters.

        Args:
            run: holds the recipe and the cold start.
            model: a transformers causal language model; the learner changes it in place. With several ranks the learner
                trains a copy in shards; the model itself changes when weights are handed over or saved.
            tokenizer: the model's tokenizer, which is saved with each checkpoint.
            tell: called with a sentence when an iteration has no signal, and when the model cannot read prefix trees.
            ranks: the processes that are this learner together.

        Raises:
            UsageError: the model cannot be split over ranks.
        """
        self.recipe, self.tokenizer, self.tell, self.ranks = run.recipe, tokenizer, tell, ranks
        self.version = 0
        self._cold_start = run.checkpoints / "cold-start"
        self._reference: LanguageModel | None = None
        settings, weights = self.recipe.optimizer, self.recipe.weights
        if weights.lora_rank:
            adapters.add_new(model, weights, run_seed=self.recipe.seed)
        self._held = _hold(model, settings, ranks)
        self.model, self.optimizer = self._held.model, self._held.optimizer
        self._passes = Passes(self.recipe.sampling.temperature, settings.token_budget, self._packing(), ranks)

    def _packing(self) -> Packing:
        """The recipe's way of packing, where the model can read it."""
        wanted = self.recipe.optimizer.packing
        if wanted == "tree" and self.recipe.iterations and (reason := obstacle(self.model)):
            self.tell(
                f"updates read each row on its own (optimizer.packing rows): the model cannot read trees, since {reason}"
            )
            return "rows"
        return wanted

    # -- weights ----------------------------------------------------------------------------------------------------

    def weights(self) -> ModelState:
        """All weights by name, adapters included; not copied. Several ranks gather each weight when it is asked for."""
        return self._held.weights()

    def save(self, folder: Path, iteration: int, *, success: float | None = None) -> Path:
        """Write weights, optimiser and random states; of several ranks the first alone writes.

        Raises:
            StorageError: the checkpoint cannot be written.
        """
        self._held.collect()
        if self.ranks.rank:
            self.optimizer.state_dict()  # it is gathered
            return folder
        return checkpoints.save(folder, iteration, self._held.whole, self.tokenizer, self.optimizer, success=success)

    def load(self, path: Path | None) -> int:
        """Resume from a checkpoint, or start without one; returns the number of finished iterations."""
        if path is None:
            # Checkpoints hold the random states, which must not depend on what the process did before.
            set_seed(derive(self.recipe.seed, "training") % 2**32)
        else:
            if adapters.holds_adapters(path):
                adapters.restore(self._held.whole, path)
            else:
                self._held.whole.load_state_dict(load_model(path, device="cpu").state_dict())
            self._held.spread()
            self.version = checkpoints.load_training(path, self.optimizer)
        if self.recipe.loss.kl and self.version < self.recipe.iterations:
            self._reference = self._frozen()
        return self.version

    def _frozen(self) -> LanguageModel:
        """The reference model (the cold start): with adapters the trained model itself, else a second model."""
        weights = self.recipe.weights
        if weights.lora_rank:
            return self.model
        return self._held.frozen(load_model(self._cold_start, device=weights.device, dtype=weights.dtype))

    # -- updates ----------------------------------------------------------------------------------------------------

    def has_signal(self, tree: Tree) -> bool:
        """Whether the policy can learn from a group. Penalties alone are no signal: they concern form, not the task."""
        return has_signal(self.recipe.advantage(self.recipe.rewards.shape(tree)))

    def update(self, trees: Sequence[Tree], iteration: int) -> dict[str, float]:
        """Update the policy on the trees that have signal; returns the metrics of the update.

        Raises:
            TrainingDiverged: the loss is not finite, or a divergence exceeds `optimizer.max_kl`.
        """
        recipe, settings, started = self.recipe, self.recipe.optimizer, time.perf_counter()
        chosen = [tree for tree in trees if settings.without_signal == "keep" or self.has_signal(tree)]
        if not chosen:
            self.tell(f"iteration {iteration}: in every tree all trajectories did equally well, so nothing is learnt")
            self.version = iteration
            return {"trained": 0.0, "trained_groups": 0.0}
        batch = pack(chosen, [recipe.rewards.credit(tree, recipe.advantage) for tree in chosen])
        loss = recipe.loss
        if not loss.importance and not isinstance(recipe.engine, Local):
            trusted = rollout_gap(self._some(batch)) <= loss.trusted_gap
            loss = replace(loss, importance=0.0 if trusted else CAP)
        noise = {"gradient_snr": self._noise(batch)} if settings.measure_noise else {}
        with recomputing(self.model, recipe.weights.checkpointing):
            stats = update(
                self.model,
                self._reference,
                self.optimizer,
                batch,
                loss,
                self._passes,
                minibatches=settings.minibatches,
                max_grad_norm=settings.max_grad_norm,
                epochs=settings.epochs,
                rng=random.Random(derive(recipe.seed, iteration, "minibatches")),
            )
        stats |= {"kl": divergence(self._some(batch), loss.kl_clamp), "importance": loss.importance}
        self._check(stats)
        self.version = iteration
        return {
            **noise,
            **{f"update_{name}": value for name, value in stats.items()},
            "trained": stats["trained_tokens"],
            "trained_groups": float(len(chosen)),
            "seconds_update": time.perf_counter() - started,
        }

    def _noise(self, batch: Batch) -> float:
        parameters = trained(self.optimizer)
        with recomputing(self.model, self.recipe.weights.checkpointing):
            return signal_to_noise(self.model, batch, self.recipe.loss, self._passes, parameters=parameters)

    def _some(self, batch: Batch) -> Targets[NDArray[np.float64]]:
        """The tokens of some rows, with `old` under the present model."""
        return trainer_logprobs(self.model, batch.select(range(0, len(batch.rows), MEASURED)), self._passes).flat()

    def _check(self, stats: dict[str, float]) -> None:
        limit = self.recipe.optimizer.max_kl
        for name in ("reference_kl", "old_kl", "kl"):
            if not stats[name] <= limit:
                raise TrainingDiverged(
                    f"the update's {name} {stats[name]:.3f} exceeds optimizer.max_kl {limit}; lower the learning rate"
                )


def _hold(model: LanguageModel, settings: Optimizer, ranks: Ranks) -> Held:
    """The model with its optimiser: whole, or shared by several ranks."""
    common = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if ranks.count == 1:
        return Held(model, **common)
    from spark_rl.learning.sharding import Shared

    return Shared(model, ranks, **common)


def divergence(new: Targets[NDArray[np.float64]], clamp: float) -> float:
    """Mean KL divergence of the sampling policy from the new policy, whose log-probabilities are in `old`."""
    gap = np.minimum(new.old - new.sampling, LOG_RATIO_LIMIT)
    return float(np.average(np.minimum(np.exp(gap) - gap - 1, clamp), weights=new.weight))


def rollout_gap(present: Targets[NDArray[np.float64]]) -> float:
    """Mean distance of the rollout's log-probabilities from the trainer's, which are in `old`."""
    return float(np.average(np.abs(present.old - present.sampling), weights=present.weight))
