# pyright: standard
"""One update of the policy: optimiser steps over the mini-batches of a batch.

Invariants
----------
* Weights change only by a finite gradient: a loss or a gradient norm that is not finite raises before the step.
* A mini-batch's gradient does not depend on how it was cut into micro-batches.
* The model runs in evaluation mode, where dropout is off, so that its log-probabilities are those of the sampler; so it
  does while layers are computed twice to save memory (`recomputing`).

The ratio's denominator is the rollout's own log-probability: what was sampled is what is corrected. With
`Loss.importance` it is the trainer's log-probability before the first step, and the truncated weight
min(exp(trainer - rollout), importance) accounts for the difference between the two engines.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from spark_rl.errors import TrainingDiverged, UsageError
from spark_rl.learning.batch import Batch, MicroBatch
from spark_rl.learning.optimizer import trained
from spark_rl.models import adapters
from spark_rl.objective.loss import Loss, Targets, policy_loss, token_logprobs

__all__ = ["accumulate", "recomputing", "signal_to_noise", "trainer_logprobs", "update"]


def update(
    model: Any,
    reference: Any | None,
    optimizer: Optimizer,
    batch: Batch,
    loss: Loss,
    *,
    temperature: float,
    minibatches: int,
    token_budget: int,
    max_grad_norm: float,
    epochs: int = 1,
    rng: random.Random | None = None,
) -> dict[str, float]:
    """Train the model on a batch; `epochs * minibatches` optimiser steps (fewer if there are fewer trees).

    Args:
        model: a transformers causal language model; left in evaluation mode.
        reference: the frozen model that `loss.kl` measures from; None when that is 0. A model with adapters is measured
            with them off, and so can be its own reference.
        optimizer: over the weights that are trained.
        batch: what `pack` made.
        loss: the objective.
        temperature: of the rollout, by which logits are divided; 0 (greedy) counts as 1.
        minibatches: optimiser steps an epoch.
        token_budget: most cells (rows times longest) of a forward pass.
        max_grad_norm: the gradient's norm is clipped here; 0 for no clipping.
        epochs: passes over the batch.
        rng: shuffles the trees before each epoch; None keeps their order.

    Returns:
        Means over the steps of what `policy_loss` and `grad_norm` report (maxima where the name ends in `_max`), and the
        sums `steps`, `trained_tokens` (through the model with gradient, padding aside) and `sampled_tokens`.
        `rollout_kl`, the mean of rollout minus trainer log-probability, and `rollout_gap_max`, their largest difference,
        are of the first mini-batch alone: no step has been made yet, so they show what the two engines disagree in and
        nothing else, and are 0 up to rounding when all is well.

    Raises:
        TrainingDiverged: the loss or the gradient is not finite; the weights are those of the step before.
    """
    if loss.kl and reference is None:
        raise UsageError(f"loss.kl is {loss.kl} but there is no reference model; give one or set loss.kl to 0")
    model.eval()
    if loss.importance:
        batch = trainer_logprobs(model, batch, temperature=temperature, token_budget=token_budget)
    steps: list[dict[str, float]] = []
    for _ in range(epochs):
        for part in batch.minibatches(minibatches, rng):
            optimizer.zero_grad(set_to_none=True)
            stats = accumulate(model, reference, part, loss, temperature=temperature, token_budget=token_budget)
            norm = float(torch.nn.utils.clip_grad_norm_(trained(optimizer), max_grad_norm or math.inf))
            if not math.isfinite(norm):
                raise TrainingDiverged(
                    f"the gradient's norm is {norm} at step {len(steps) + 1} of the update; lower the learning rate"
                )
            optimizer.step()
            steps.append(stats | {"grad_norm": norm, "trained_tokens": part.tokens, "sampled_tokens": part.sampled})
    optimizer.zero_grad(set_to_none=True)
    return _summarise(steps)


def accumulate(
    model: Any, reference: Any | None, batch: Batch, loss: Loss, *, temperature: float, token_budget: int
) -> dict[str, float]:
    """Add the gradient of one mini-batch's loss to the parameters' and return what `policy_loss` reports.

    Raises:
        TrainingDiverged: the loss is not finite.
    """
    denominator = loss.denominator(batch.flat())
    total: dict[str, float] = {}
    for micro in batch.microbatches(token_budget):
        tokens, sampled = _place(model, micro)
        expected = None
        if loss.kl and reference is not None:
            with torch.no_grad(), adapters.off(reference):
                expected, _ = token_logprobs(reference, tokens, sampled, temperature)
        logprobs, entropy = token_logprobs(model, tokens, sampled, temperature, with_entropy=True)
        assert entropy is not None
        targets = Targets(*(torch.as_tensor(column).to(logprobs) for column in micro.targets))
        value, stats = policy_loss(loss, targets, logprobs, entropy, expected, denominator)
        if not math.isfinite(stats["loss"]):
            raise TrainingDiverged(f"the loss is {stats['loss']}; lower the learning rate")
        value.backward()
        for name, number in stats.items():
            before = total.get(name, 0.0)
            total[name] = max(before, number) if name.endswith("_max") else before + number
    return total


def signal_to_noise(
    model: Any,
    batch: Batch,
    loss: Loss,
    *,
    temperature: float,
    token_budget: int,
    silent: int = 0,
    parameters: Sequence[Tensor] = (),
) -> float:
    """How well the trees of a batch agree on where to go: |mean gradient|^2 over the variance of one tree's gradient.

    Each tree counts once, with its own policy term (no divergence, no entropy) at the present weights. Both parts are
    unbiased over trees, so the ratio is near 0, and may be below, when nothing but noise is there. Costs one more pass
    with gradients over the batch. `silent` further trees are counted that gave no gradient. `parameters` hold the gradients
    (`masters.trained`); by default the model's.

    Returns:
        The ratio; 0 with fewer than two trees, or without variance.
    """
    model.eval()
    policy = replace(loss, kl=0.0, entropy=0.0)
    trees = sorted({row.tree for row in batch.rows})
    parameters = parameters or [p for p in model.parameters() if p.requires_grad]
    total, squares = [torch.zeros_like(p, dtype=torch.float64) for p in parameters], 0.0
    for tree in trees:
        _forget(parameters)
        part = batch.select([index for index, row in enumerate(batch.rows) if row.tree == tree])
        accumulate(model, None, part, policy, temperature=temperature, token_budget=token_budget)
        for held, parameter in zip(total, parameters, strict=True):
            if parameter.grad is not None:
                gradient = parameter.grad.double()
                held += gradient
                squares += float(gradient.square().sum())
    _forget(parameters)
    count, together = len(trees) + silent, sum(float(held.square().sum()) for held in total)
    noise = squares - together / max(count, 1)
    return (together - squares) / count / noise if count > 1 and noise > 0 else 0.0


def _forget(parameters: Sequence[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None


@contextlib.contextmanager
def recomputing(model: Any, wanted: bool = True) -> Iterator[None]:
    """Layers keep their inputs alone for a backward pass and compute the rest again (arXiv 1604.06174).

    The library's own switch works in training mode only, where dropout would be on.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)] if wanted else []
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def trainer_logprobs(model: Any, batch: Batch, *, temperature: float, token_budget: int) -> Batch:
    """The batch with `Targets.old` recomputed under the model as it is now."""
    targets = list(batch.targets)
    with torch.no_grad():
        for micro in batch.microbatches(token_budget):
            logprobs, _ = token_logprobs(model, *_place(model, micro), temperature)
            ends = np.cumsum([len(targets[row].old) for row in micro.rows])[:-1]
            for row, old in zip(micro.rows, np.split(logprobs.double().cpu().numpy(), ends), strict=True):
                targets[row] = targets[row]._replace(old=old)
    return Batch(batch.rows, tuple(targets))


def _place(model: Any, micro: MicroBatch) -> tuple[Tensor, Tensor]:
    """Tokens and their marks on the model's device."""
    return torch.from_numpy(micro.tokens).to(model.device), torch.from_numpy(micro.sampled).to(model.device)


def _summarise(steps: list[dict[str, float]]) -> dict[str, float]:
    """One number of each kind over the optimiser steps of an update."""
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
