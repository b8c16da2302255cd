# pyright: standard
"""Direct preference optimisation on pairs of trajectories (ETO, arXiv 2403.02502), through TRL's DPOTrainer.

Invariant: the tokens that are weighed are those that were sampled: rows are packed by `batch.py` from recorded ids, and
nothing is tokenised, truncated or templated a second time.

A trajectory e = (a_1, o_1, ..., a_n) of a task u has the log-probability of its actions, reasoning included, given what was
read before each,

    log pi(e | u) = sum_j log pi(a_j | u, a_1, o_1, ..., o_{j-1}),

a sum over all tokens that its steps sampled. What was read is the step's own prompt: where each step has a prompt of its
own (`Window`) a trajectory is several rows, whose sums add up; where prompts extend one another (`Transcript`) it is one. A
pair of a won and a lost trajectory of one task has the loss

    -log sigmoid(margin),   margin = beta * [log pi(won)/ref(won) - log pi(lost)/ref(lost)],

with ref the policy as it was before. Its log-probabilities are computed once, at the start, so no second model is held. Of
TRL's trainer the data preparation and the loss are replaced, since it knows one prompt and one answer a trajectory; its
loss on such trajectories is ours (a test compares them).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spark_rl.data.pairs import Pair
from spark_rl.learning.batch import Row, packed_sequences
from spark_rl.learning.finetuning.trl import configured, part_of_batch, require_trl, trainable, watch
from spark_rl.models.weights import Weights
from spark_rl.objective.loss import token_logprobs
from spark_rl.objective.preferences import Preferences

__all__ = ["dpo_loss", "learn", "trajectory_logprobs"]

FIGURES = {"loss": "loss", "margin": "rewards/margins", "accuracy": "rewards/accuracies"}
"""What is reported, and TRL's name of it."""


def dpo_loss(won: Tensor, lost: Tensor, won_before: Tensor, lost_before: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Loss and margin of each pair.

    Args:
        won: log-probability of each won trajectory, [pairs], with gradient.
        lost: of the lost one, [pairs], with gradient.
        won_before: of the won one under the policy as it was before, [pairs].
        lost_before: of the lost one, [pairs].
        beta: weight of the log-ratios.

    Returns:
        Tensors [pairs].
    """
    margin = beta * ((won - won_before) - (lost - lost_before))
    return -nn.functional.logsigmoid(margin), margin


def trajectory_logprobs(model: Any, tokens: Tensor, sampled: Tensor, owner: Tensor, count: int) -> Tensor:
    """Log-probability of the actions of each trajectory, [count].

    Args:
        model: a transformers causal language model.
        tokens: ids, [rows, length], padded on the right.
        sampled: which of them were sampled, bool [rows, length].
        owner: which trajectory each row is of, [rows].
        count: how many trajectories there are.
    """
    logprobs, _ = token_logprobs(model, tokens, sampled, 1.0)
    return logprobs.new_zeros(count).index_add(0, owner.repeat_interleave(sampled.sum(1)), logprobs)


def learn(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    settings: Preferences,
    *,
    seed: int,
    weights: Weights = Weights(),
    token_budget: int = 16384,
    advance: Callable[[int, int, float], None] = lambda *_: None,
) -> dict[str, float]:
    """Prefer the won trajectory of each pair, in place.

    Args:
        model: a transformers causal language model: the policy, and the one it is held to.
        tokenizer: its tokenizer.
        pairs: with token ids, at least one.
        settings: beta, learning rate and so on.
        seed: of the order of pairs.
        weights: which are trained.
        token_budget: most tokens, padding included, of one forward pass; a single pair may exceed it.
        advance: told (finished steps, all steps, loss) as training goes on.

    Returns:
        `loss`, `margin` and `accuracy` (share of pairs with a margin above 0), means over the last epoch; `steps`; `tokens`
        (seen with gradient in all, padding aside).

    Raises:
        MissingExtra: TRL is not installed.
    """
    require_trl("learning by preference")
    from datasets import Dataset

    examples = [_example(pair) for pair in pairs]
    cells = max(len(example["tokens"]) * max(map(len, example["tokens"])) for example in examples)
    part = part_of_batch(settings.batch, cells, token_budget)
    steps: list[Mapping[str, float]] = []

    def note(step: int, total: int, logs: Mapping[str, float]) -> None:
        steps.append(logs)
        advance(step, total, logs["loss"])

    with tempfile.TemporaryDirectory() as scratch, trainable(model, weights, seed) as autocast:
        trainer = _trainer(settings.beta, note)(
            model=model,
            args=_config(settings, model, scratch, part=part, seed=seed, autocast=autocast),
            train_dataset=Dataset.from_list(examples),
            processing_class=tokenizer,
            data_collator=_Collator(tokenizer.pad_token_id),
        )
        trainer.train()
    epoch = steps[-max(1, len(steps) // settings.epochs) :]
    seen = settings.epochs * sum(len(row) for example in examples for row in example["tokens"])
    means = {name: sum(logs[key] for logs in epoch) / len(epoch) for name, key in FIGURES.items()}
    return {**means, "steps": len(steps), "tokens": seen}


def _config(settings: Preferences, model: Any, scratch: str, **rest: Any) -> Any:
    """TRL's settings."""
    from trl.trainer.dpo_config import DPOConfig

    return configured(
        DPOConfig,
        model,
        scratch,
        batch=settings.batch,
        warmup=settings.warmup,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        weight_decay=0.0,
        beta=settings.beta,
        precompute_ref_log_probs=True,
        **rest,
    )


def _example(pair: Pair) -> dict[str, list[Any]]:
    """The rows of both trajectories that weigh: ids, which were sampled, and whether the row is of the lost one."""
    sides = [packed_sequences([side.tree], [side.slips]) for side in (pair.won, pair.lost)]
    rows: list[tuple[Row, bool]] = [
        (row, bool(lost)) for lost, side in enumerate(sides) for row in side if row.sampled.any()
    ]
    return {
        "tokens": [row.tokens.tolist() for row, _ in rows],
        "sampled": [row.sampled.tolist() for row, _ in rows],
        "lost": [lost for _, lost in rows],
    }


class _Collator:
    """Pads the rows of some pairs on the right; trajectory i is the won one of pair i, and pairs + i its lost one."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        def padded(name: str, fill: int) -> Tensor:
            rows = [torch.tensor(row) for example in examples for row in example[name]]
            return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)

        owner = [i + lost * len(examples) for i, example in enumerate(examples) for lost in example["lost"]]
        batch = {"tokens": padded("tokens", self.pad), "sampled": padded("sampled", False), "owner": torch.tensor(owner)}
        if "before" in examples[0]:
            batch["before"] = torch.tensor([example["before"] for example in examples]).T.flatten()
        return batch


def _trainer(beta: float, note: Callable[[int, int, Mapping[str, float]], None]) -> type[Any]:
    """TRL's trainer on rows as they are, which tells `note` its figures."""
    from transformers import PrinterCallback
    from trl.trainer.dpo_trainer import DPOTrainer

    class Trajectories(DPOTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(callbacks=[watch(note)], **arguments)
            self.remove_callback(PrinterCallback)

        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            """The dataset with the log-probabilities of each pair, won and lost, under the policy before its first step."""
            before: list[list[float]] = []
            with torch.no_grad(), self.accelerator.autocast():
                for first in range(0, len(dataset), batch_size):
                    batch = self.data_collator(list(dataset.select(range(first, min(first + batch_size, len(dataset))))))
                    before += self._logprobs(self.model, self._prepare_inputs(batch)).T.tolist()
            return dataset.add_column("before", before)

        def _logprobs(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
            """Log-probabilities of the won and of the lost trajectories, [2, pairs]."""
            count = int(inputs["owner"].max()) + 1
            return trajectory_logprobs(model, inputs["tokens"], inputs["sampled"], inputs["owner"], count).view(2, -1)

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            (won, lost), (won_before, lost_before) = self._logprobs(model, inputs), inputs["before"].view(2, -1)
            losses, margin = dpo_loss(won, lost, won_before, lost_before, beta)
            for name, values in (("rewards/margins", margin), ("rewards/accuracies", (margin > 0).float())):
                self._metrics["train"][name].append(values.mean().item())
            loss = losses.mean()
            return (loss, {}) if return_outputs else loss

    return Trajectories
