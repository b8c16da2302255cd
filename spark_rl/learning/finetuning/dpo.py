"""Direct preference optimisation on pairs of trajectories (ETO, arXiv 2403.02502), through TRL's DPOTrainer.

Invariant: the loss uses the tokens that were sampled. `learning.batch` packs rows from the recorded ids, so no text is
tokenised, truncated or templated a second time.

The log-probability of a trajectory e = (a_1, o_1, ..., a_n) of a task u is that of its actions, reasoning included, each
given the prompt before it:

    log pi(e | u) = sum_j log pi(a_j | u, a_1, o_1, ..., o_{j-1}),

a sum over all tokens that its steps sampled. Where each step has a prompt of its own (`Window`), a trajectory is several
rows, whose sums add up; where prompts extend one another (`Transcript`), it is one row. A pair of a won and a lost
trajectory of one task has the loss

    -log sigmoid(margin),   margin = beta * [log pi(won)/ref(won) - log pi(lost)/ref(lost)],

where ref is the policy before training. Its log-probabilities are computed once, at the start, so no second model is loaded.
This module replaces the data preparation and the loss of TRL's trainer, which takes one prompt and one completion for each
trajectory. On such trajectories both losses are equal (a test compares them).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Protocol, Self, TypedDict, cast

import torch
from torch import Tensor, nn

from spark_rl.common.ranks import ALONE
from spark_rl.contracts import LanguageModel, Ranks, Tokenizer
from spark_rl.data.pairs import Pair
from spark_rl.learning.batch import Row, packed_sequences
from spark_rl.learning.finetuning.trl import (
    Advance,
    Note,
    configured,
    own_rows,
    part_of_batch,
    require_trl,
    silent,
    together,
    trainable,
    watch,
)
from spark_rl.models.logprobs import token_logprobs
from spark_rl.models.weights import Weights
from spark_rl.objective.preferences import Preferences

if TYPE_CHECKING:
    from trl.trainer.dpo_config import DPOConfig

__all__ = ["dpo_loss", "learn", "trajectory_logprobs"]

METRICS = {"loss": "loss", "margin": "rewards/margins", "accuracy": "rewards/accuracies"}
"""Names of the metrics that `learn` returns, and TRL's names of them."""


class _Example(TypedDict):
    """The rows of a pair, in the form that TRL takes."""

    tokens: list[list[int]]
    sampled: list[list[bool]]
    lost: list[bool]
    """Whether each row belongs to the lost trajectory."""
    before: NotRequired[list[float]]
    """Log-probabilities of the won and of the lost trajectory before training."""


def dpo_loss(won: Tensor, lost: Tensor, won_before: Tensor, lost_before: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Loss and margin of each pair.

    Args:
        won: log-probability of each won trajectory, [pairs], with gradient.
        lost: log-probability of each lost trajectory, [pairs], with gradient.
        won_before: log-probability of each won trajectory under the policy before training, [pairs].
        lost_before: the same of each lost trajectory, [pairs].
        beta: weight of the log-ratios.

    Returns:
        Tensors [pairs].
    """
    margin = beta * ((won - won_before) - (lost - lost_before))
    return -nn.functional.logsigmoid(margin), margin


def trajectory_logprobs(model: LanguageModel, tokens: Tensor, sampled: Tensor, owner: Tensor, count: int) -> Tensor:
    """Log-probability of the actions of each trajectory, [count].

    Args:
        model: a transformers causal language model.
        tokens: ids, [rows, length], padded on the right.
        sampled: marks the ids that were sampled, bool [rows, length].
        owner: index of each row's trajectory, [rows].
        count: number of trajectories.
    """
    logprobs, _ = token_logprobs(model, tokens, sampled, 1.0)
    return logprobs.new_zeros(count).index_add(0, owner.repeat_interleave(sampled.sum(1)), logprobs)


def learn(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    settings: Preferences,
    *,
    seed: int,
    weights: Weights = Weights(),
    token_budget: int = 16384,
    advance: Advance = silent,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Train a model in place to prefer the won trajectory of each pair.

    Args:
        model: a transformers causal language model; its weights before training are the reference policy.
        tokenizer: the model's tokenizer.
        pairs: pairs with token ids, at least one.
        settings: beta, learning rate and so on.
        seed: seed of the order of pairs.
        weights: which weights are trained.
        token_budget: most tokens, padding included, in one forward pass; a single pair may exceed it.
        advance: called after each optimiser step.
        ranks: the processes that train it together; each has the whole model.

    Returns:
        `loss`, `margin` and `accuracy` (share of pairs with a margin above 0), as means over the last epoch; `steps`;
        `tokens` (number of tokens with gradient in all epochs, without padding).

    Raises:
        MissingExtra: TRL is not installed.
    """
    require_trl("learning by preference")
    from datasets import Dataset  # pyright: ignore[reportMissingTypeStubs]

    examples = [_example(pair) for pair in pairs]
    cells = max(len(example["tokens"]) * max(map(len, example["tokens"])) for example in examples)
    part = part_of_batch(settings.batch, cells, token_budget * ranks.count)
    steps: list[Mapping[str, float]] = []

    def note(step: int, total: int, logs: Mapping[str, float]) -> None:
        steps.append(logs)
        advance(step, total, logs["loss"])

    with tempfile.TemporaryDirectory() as scratch, trainable(model, weights, seed) as autocast:
        trainer = together(_trainer(settings.beta, note, ranks), ranks)(
            model=model,
            args=_config(settings, model, scratch, part=part, seed=seed, autocast=autocast),
            train_dataset=Dataset.from_list(cast("list[dict[str, object]]", examples)),  # pyright: ignore[reportUnknownMemberType]
            processing_class=tokenizer,
            data_collator=_Collator(tokenizer.pad_token_id),
        )
        trainer.train()
    epoch = steps[-max(1, len(steps) // settings.epochs) :]
    tokens = settings.epochs * sum(len(row) for example in examples for row in example["tokens"])
    means = {name: sum(logs[key] for logs in epoch) / len(epoch) for name, key in METRICS.items()}
    return {**means, "steps": len(steps), "tokens": tokens}


def _config(settings: Preferences, model: LanguageModel, scratch: str, *, part: int, seed: int, autocast: bool) -> DPOConfig:
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
        part=part,
        seed=seed,
        autocast=autocast,
    )


def _example(pair: Pair) -> _Example:
    """The rows of both trajectories that have sampled tokens."""
    sides = [packed_sequences([side.tree], [side.slips]) for side in (pair.won, pair.lost)]
    rows: list[tuple[Row, bool]] = [
        (row, bool(lost)) for lost, side in enumerate(sides) for row in side if row.sampled.any()
    ]
    return {
        "tokens": [row.tokens.tolist() for row, _ in rows],
        "sampled": [row.sampled.tolist() for row, _ in rows],
        "lost": [lost for _, lost in rows],
    }


class _Rows(Protocol):
    """A data set of the library `datasets` with one `_Example` for each row, as far as this module calls it."""

    def __len__(self) -> int: ...

    def select(self, indices: Iterable[int]) -> Iterable[dict[str, object]]: ...

    def add_column(self, name: str, column: list[list[float]]) -> Self: ...


class _Collator:
    """Pads the rows of some pairs on the right.

    Trajectory i is the won one of pair i, and trajectory (number of pairs + i) its lost one.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, examples: Sequence[_Example]) -> dict[str, Tensor]:
        def padded(name: Literal["tokens", "sampled"], fill: int) -> Tensor:
            rows = [torch.tensor(row) for example in examples for row in example[name]]
            return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)

        owner = [i + lost * len(examples) for i, example in enumerate(examples) for lost in example["lost"]]
        batch = {"tokens": padded("tokens", self.pad), "sampled": padded("sampled", False), "owner": torch.tensor(owner)}
        if "before" in examples[0]:
            batch["before"] = torch.tensor([example.get("before") for example in examples]).T.flatten()
        return batch


def _of_pairs(batch: Mapping[str, Tensor], own: Sequence[int]) -> dict[str, Tensor]:
    """The rows of some pairs of a batch."""
    owner, pairs = batch["owner"], batch["before"].numel() // 2
    kept = torch.isin(owner % pairs, torch.tensor(own, device=owner.device))
    place = torch.zeros(pairs, dtype=torch.long, device=owner.device)
    place[own] = torch.arange(len(own), device=owner.device)
    theirs = owner[kept]
    return {
        "tokens": batch["tokens"][kept],
        "sampled": batch["sampled"][kept],
        "owner": place[theirs % pairs] + theirs // pairs * len(own),
    }


def _trainer(beta: float, note: Note, ranks: Ranks) -> type[Any]:
    """TRL's trainer on packed rows, which it does not change; it reports its metrics to `note`."""
    from transformers import PrinterCallback
    from trl.trainer.dpo_trainer import DPOTrainer

    class Trajectories(DPOTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(callbacks=[watch(note)], **arguments)  # pyright: ignore[reportUnknownMemberType]
            self.remove_callback(PrinterCallback)

        # TRL's two methods take and return other kinds of data sets, too.
        def _prepare_dataset(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, dataset: _Rows, processing_class: object, args: object, dataset_name: str
        ) -> _Rows:
            return dataset

        def _precompute_ref_logps(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, dataset: _Rows, name: str, batch_size: int
        ) -> _Rows:
            """The dataset with the log-probabilities of each pair, won and lost, under the policy before training."""
            before: list[list[float]] = []
            policy = cast(LanguageModel, self.model)  # pyright: ignore[reportUnknownMemberType]
            with torch.no_grad(), self.accelerator.autocast():
                for first in range(0, len(dataset), batch_size):
                    batch = self.data_collator(list(dataset.select(range(first, min(first + batch_size, len(dataset))))))
                    before += self._logprobs(policy, self._prepare_inputs(batch)).T.tolist()  # pyright: ignore[reportUnknownMemberType]
            return dataset.add_column("before", before)

        def _logprobs(self, model: LanguageModel, inputs: Mapping[str, Tensor]) -> Tensor:
            """Log-probabilities of the won and of the lost trajectories, [2, pairs]."""
            count = int(inputs["owner"].max()) + 1
            return trajectory_logprobs(model, inputs["tokens"], inputs["sampled"], inputs["owner"], count).view(2, -1)

        def compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride]  (its model is any module)
            self,
            model: LanguageModel,
            inputs: Mapping[str, Tensor],
            return_outputs: bool = False,
            num_items_in_batch: Tensor | int | None = None,
        ) -> Tensor | tuple[Tensor, object]:
            before = inputs["before"].view(2, -1)
            pairs = before.shape[1]
            own, counts = own_rows(pairs, ranks)
            (won, lost), (won_before, lost_before) = self._logprobs(model, _of_pairs(inputs, own)), before[:, own]
            losses, margin = dpo_loss(won, lost, won_before, lost_before, beta)
            known = cast("list[float]", margin.tolist()) if counts else []  # pyright: ignore[reportUnknownMemberType]
            margins = [each for part in ranks.gather(known) for each in part]
            for name, values in (("rewards/margins", margins), ("rewards/accuracies", [each > 0 for each in margins])):
                self._metrics["train"][name].append(sum(values) / pairs)  # pyright: ignore[reportUnknownMemberType]
            loss = losses.sum() * counts / pairs
            return (loss, {}) if return_outputs else loss

    return Trajectories
