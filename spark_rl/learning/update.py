"""One update of the policy: optimiser steps over the mini-batches of a batch.

Invariants
----------
* Weights change only by a finite gradient: a loss or a gradient norm that is not finite raises before the step.
* A mini-batch's gradient does not depend on how it was cut into micro-batches, nor on how these are packed.
* Ranks that share a model's shards give the gradient of one process: each reads its share of the micro-batches, the sums go
  over all ranks, and all ranks make equally many passes, since each pass gathers the shards of all.
* The model is in evaluation mode, where dropout is off, so that its log-probabilities equal those of the sampler. This also
  holds while layers are computed twice to save memory (`recomputing`).

The ratio's denominator is the rollout's own log-probability, since the rollout's distribution gave the samples. With
`Loss.importance`, the denominator is the trainer's log-probability before the first step, and the truncated weight
min(exp(trainer - rollout), importance) corrects for the difference between the two engines.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]  untyped arguments
from transformers.modeling_layers import GradientCheckpointingLayer

from spark_rl.common.ranks import combined
from spark_rl.contracts import LanguageModel
from spark_rl.errors import TrainingDiverged, UsageError
from spark_rl.learning.batch import Batch
from spark_rl.learning.optimizer import number, trained
from spark_rl.learning.packing import MicroBatch, Packing, Passes
from spark_rl.models import adapters
from spark_rl.models.logprobs import Predictions, predicted_logprobs
from spark_rl.models.tree_attention import ancestry, attending, depths
from spark_rl.objective.loss import Loss, Targets, policy_loss

__all__ = ["accumulate", "recomputing", "signal_to_noise", "trainer_logprobs", "update"]


def update(
    model: LanguageModel,
    reference: LanguageModel | None,
    optimizer: Optimizer,
    batch: Batch,
    loss: Loss,
    passes: Passes,
    *,
    minibatches: int,
    max_grad_norm: float,
    epochs: int = 1,
    rng: random.Random | None = None,
) -> dict[str, float]:
    """Train the model on a batch; `epochs * minibatches` optimiser steps (fewer if there are fewer trees).

    Args:
        model: a transformers causal language model; stays in evaluation mode.
        reference: the frozen model of the divergence `loss.kl`; None when `loss.kl` is 0. The reference runs with its
            adapters off, so a model with adapters can be its own reference.
        optimizer: the optimiser of the trained weights.
        batch: a batch from `pack`.
        loss: the objective.
        passes: how the batch goes through the model.
        minibatches: optimiser steps in an epoch.
        max_grad_norm: largest norm of the gradient, which is clipped above; 0 for no clipping.
        epochs: passes over the batch.
        rng: shuffles the trees before each epoch; None leaves their order.

    Returns:
        The statistics of `policy_loss` and `grad_norm`, as means over the steps (as maxima where the name ends in `_max`),
        and the sums `steps`, `trained_tokens` (tokens through the model with gradient, without padding) and
        `sampled_tokens` (tokens that the policy sampled). `rollout_kl` is the mean of the rollout's minus the trainer's
        log-probability; `rollout_gap` and `rollout_gap_max` are the mean and the largest of their distances. All three are
        of the first mini-batch alone, before any step, so they measure the disagreement of the two engines; they are 0 up to
        rounding when the engines agree.

    Raises:
        TrainingDiverged: the loss or the gradient is not finite; the weights stay those of the last finite step.
        UsageError: `loss.kl` is above 0 without a reference model.
    """
    if loss.kl and reference is None:
        raise UsageError(f"loss.kl is {loss.kl} but there is no reference model; give one or set loss.kl to 0")
    model.eval()
    if loss.importance:
        batch = trainer_logprobs(model, batch, passes)
    steps: list[dict[str, float]] = []
    for _ in range(epochs):
        for part in batch.minibatches(minibatches, rng):
            optimizer.zero_grad(set_to_none=True)
            stats = accumulate(model, reference, part, loss, passes)
            norm = _step(optimizer, max_grad_norm, len(steps) + 1)
            steps.append(stats | {"grad_norm": norm, "sampled_tokens": part.sampled})
    optimizer.zero_grad(set_to_none=True)
    return _summarise(steps)


def _step(optimizer: Optimizer, max_grad_norm: float, step: int) -> float:
    """Clip the gradient and change the weights; returns the gradient's norm before."""
    norm = number(torch.nn.utils.clip_grad_norm_(trained(optimizer), max_grad_norm or math.inf))
    if not math.isfinite(norm):
        raise TrainingDiverged(f"the gradient's norm is {norm} at step {step} of the update; lower the learning rate")
    optimizer.step()
    return norm


def accumulate(
    model: LanguageModel,
    reference: LanguageModel | None,
    batch: Batch,
    loss: Loss,
    passes: Passes,
) -> dict[str, float]:
    """Add the gradient of a mini-batch's loss to the parameters' gradients.

    Returns:
        The statistics of `policy_loss`, and `trained_tokens` (see `update`), of all ranks.

    Raises:
        TrainingDiverged: the loss is not finite.
    """
    denominator, temperature = loss.denominator(batch.flat()), passes.temperature
    found: list[dict[str, float]] = []
    with _reading(passes.packing, model, reference):
        for micro in passes.share(batch):
            tokens, predictions, options = _place(model, micro)
            expected = None
            if loss.kl and reference is not None:
                with torch.no_grad(), adapters.off(reference):
                    expected, _ = predicted_logprobs(reference, tokens, predictions, temperature, options=options)
            logprobs, entropy = predicted_logprobs(
                model, tokens, predictions, temperature, with_entropy=True, options=options
            )
            assert entropy is not None
            targets = Targets(*(torch.as_tensor(column).to(logprobs) for column in micro.targets))
            value, stats = policy_loss(loss, targets, logprobs, entropy, expected, denominator)
            value.backward()  # pyright: ignore[reportUnknownMemberType]  untyped in torch
            if micro.rows:
                found.append(stats | {"trained_tokens": micro.size})
    total = combined(passes.ranks.gather(combined(found)))
    if not math.isfinite(total["loss"]):  # on all ranks, so that none waits for another
        raise TrainingDiverged(f"the loss is {total['loss']}; lower the learning rate")
    return total


def signal_to_noise(
    model: LanguageModel,
    batch: Batch,
    loss: Loss,
    passes: Passes,
    *,
    silent: int = 0,
    parameters: Sequence[Tensor] = (),
) -> float:
    """Agreement of the trees of a batch: |mean gradient|^2 over the variance of one tree's gradient.

    Each tree counts once, with its own policy term (without divergence and entropy) at the present weights. Both numbers are
    unbiased over trees, so the ratio is near 0, and may be negative, when there is only noise. The measurement costs one
    more pass with gradients over the batch.

    Args:
        model: a transformers causal language model.
        batch: a batch from `pack`.
        loss: the objective.
        passes: how the batch goes through the model.
        silent: how many further trees to count that gave no gradient.
        parameters: the tensors that hold the gradients (`optimizer.trained`); by default the model's parameters.

    Returns:
        The ratio; 0 with fewer than two trees, or without variance.
    """
    model.eval()
    policy = replace(loss, kl=0.0, entropy=0.0)
    trees = sorted({row.tree for row in batch.rows})
    parameters = parameters or [p for p in model.parameters() if p.requires_grad]
    sums, squares = [torch.zeros_like(p, dtype=torch.float64) for p in parameters], 0.0
    for tree in trees:
        _clear(parameters)
        part = batch.select([index for index, row in enumerate(batch.rows) if row.tree == tree])
        accumulate(model, None, part, policy, passes)
        for gradients, parameter in zip(sums, parameters, strict=True):
            if parameter.grad is not None:
                gradient = parameter.grad.double()
                gradients += gradient
                squares += number(gradient.square().sum())
    _clear(parameters)
    count, together = len(trees) + silent, sum(number(gradients.square().sum()) for gradients in sums)
    noise = squares - together / max(count, 1)
    return (together - squares) / count / noise if count > 1 and noise > 0 else 0.0


def _clear(parameters: Sequence[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None


@contextlib.contextmanager
def recomputing(model: LanguageModel, enabled: bool = True) -> Generator[None]:
    """Let the layers keep only their inputs for a backward pass, and recompute the rest (arXiv 1604.06174).

    The library's own switch works in training mode only, where dropout would be on.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)] if enabled else []
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def trainer_logprobs(model: LanguageModel, batch: Batch, passes: Passes) -> Batch:
    """The batch with `Targets.old` recomputed under the present model."""
    found: dict[int, NDArray[np.float64]] = {}
    with torch.no_grad(), _reading(passes.packing, model):
        for micro in passes.share(batch):
            tokens, predictions, options = _place(model, micro)
            logprobs, _ = predicted_logprobs(model, tokens, predictions, passes.temperature, options=options)
            ends = np.cumsum([len(batch.targets[row].old) for row in micro.rows])[:-1]
            if micro.rows:
                found |= zip(micro.rows, np.split(logprobs.double().cpu().numpy(), ends), strict=True)
    old = {row: numbers for part in passes.ranks.gather(found) for row, numbers in part.items()}
    return Batch(batch.rows, tuple(targets._replace(old=old[row]) for row, targets in enumerate(batch.targets)))


def _reading(packing: Packing, *models: LanguageModel | None) -> contextlib.AbstractContextManager[None]:
    """Prepares the models for micro-batches of a kind."""
    if packing == "rows":
        return contextlib.nullcontext()
    return attending(*(model for model in models if model is not None))


def _place(model: LanguageModel, micro: MicroBatch) -> tuple[Tensor, Predictions, dict[str, object]]:
    """Token ids, sampled tokens and the further options of the forward pass, on the model's device."""
    device = model.device
    predictions = Predictions(
        *(torch.as_tensor(each, device=device) for each in (micro.predicting, micro.place, micro.sampled))
    )
    options: dict[str, object] = {}
    if micro.ends is not None:
        options["position_ids"] = torch.as_tensor(depths(micro.ends)[None], device=device)
        options["tree"] = ancestry(micro.ends, device)
    return torch.as_tensor(micro.tokens, device=device), predictions, options


def _summarise(steps: list[dict[str, float]]) -> dict[str, float]:
    """One number for each statistic over the optimiser steps of an update."""
    if not steps:
        return {"steps": 0}
    summary: dict[str, float] = {"steps": len(steps)}
    for name in steps[0]:
        values = [step[name] for step in steps]
        if name.startswith("rollout_"):
            summary[name] = values[0]
        elif name.endswith("_max"):
            summary[name] = max(values)
        elif name.endswith("_tokens"):
            summary[name] = sum(values)
        else:
            summary[name] = sum(values) / len(values)
    return summary
