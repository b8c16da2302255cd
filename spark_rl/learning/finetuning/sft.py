"""Cold start: supervised fine-tuning on demonstrations, through TRL's SFTTrainer.

Invariant: fine-tuning uses the very tokens that RL will read and sample. `learning.batch` packs rows from demonstrations
that `prompting` has rendered, and the trainer gets ids with labels, so it tokenises, truncates and templates nothing.

The loss is on completions. With `ColdStart.prompt_weight` the prompt's tokens count a little too, and with
`optimizer="muon"` Muon trains the matrices. Both matter for a model from scratch, which has to learn the language.

Only completions reach the output layer (`models.logprobs`), and a batch goes through the model in parts that fit the
token budget. A row longer than `ColdStart.max_tokens` is left out whole, and the user gets a message about it.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import torch
from torch import nn

from spark_rl.common.ranks import ALONE
from spark_rl.config.recipe import ColdStart
from spark_rl.contracts import LanguageModel, Ranks, Tokenizer
from spark_rl.data.format import Demonstration
from spark_rl.errors import UsageError
from spark_rl.learning.batch import packed_sequences
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

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

__all__ = ["cold_start"]


class _Example(TypedDict):
    """One row in the form that TRL takes."""

    input_ids: list[int]
    labels: list[int]
    attention_mask: list[int]
    weights: list[float]
    demonstration: int
    """Index of the row's demonstration."""


IGNORED = -100
BATCHES_SORTED_TOGETHER = 16
NAMED = 5
"""Most tasks that a message about left out rows names."""


def cold_start(
    model: LanguageModel,
    tokenizer: Tokenizer,
    demonstrations: Sequence[Demonstration],
    settings: ColdStart,
    *,
    seed: int,
    weights: Weights = Weights(),
    token_budget: int = 16384,
    advance: Advance = silent,
    tell: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Fine-tune the model in place.

    Args:
        model: a transformers causal language model.
        tokenizer: its tokenizer.
        demonstrations: with token ids (`data.demonstrations.tokenize`).
        settings: epochs, batch, optimiser and so on.
        seed: seed of the order of rows.
        weights: which weights are trained.
        token_budget: most tokens, padding included, in one forward pass; a single row may exceed it.
        advance: called after each optimiser step.
        tell: called with a sentence about the rows that are left out as too long.
        ranks: the processes that fine-tune it together; each has the whole model.

    Returns:
        `loss` (mean over the last epoch), `steps` and `tokens` (number in all epochs, without padding).

    Raises:
        MissingExtra: TRL is not installed.
        UsageError: no row is short enough.
    """
    require_trl("the cold start")
    from datasets import Dataset  # pyright: ignore[reportMissingTypeStubs]

    examples = _fitting(_examples(demonstrations, settings.prompt_weight), demonstrations, settings.max_tokens, tell)
    longest = max((len(example["input_ids"]) for example in examples), default=1)
    # Where prompts count, a batch is one forward pass: the mean divides by the sum of all weights in the batch.
    part = settings.batch if settings.prompt_weight else part_of_batch(settings.batch, longest, token_budget * ranks.count)
    losses: list[float] = []

    def note(step: int, total: int, logs: Mapping[str, float]) -> None:
        losses.append(logs["loss"])
        advance(step, total, logs["loss"])

    with tempfile.TemporaryDirectory() as scratch, trainable(model, weights, seed) as autocast:
        trainer = together(_trainer(settings, note, ranks), ranks)(
            model=model,
            args=_config(settings, model, scratch, part=part, seed=seed, autocast=autocast),
            train_dataset=Dataset.from_list(cast("list[dict[str, object]]", examples)),  # pyright: ignore[reportUnknownMemberType]
            processing_class=tokenizer,
            data_collator=_Collator(tokenizer.pad_token_id),
            optimizers=(_optimizer(model, settings), None),
        )
        trainer.train()
    epoch = max(1, len(losses) // settings.epochs)
    tokens = settings.epochs * sum(len(example["input_ids"]) for example in examples)
    return {"loss": sum(losses[-epoch:]) / epoch if losses else 0.0, "steps": len(losses), "tokens": tokens}


def _config(settings: ColdStart, model: LanguageModel, scratch: str, *, part: int, seed: int, autocast: bool) -> SFTConfig:
    """TRL's settings."""
    from trl.trainer.sft_config import SFTConfig

    return configured(
        SFTConfig,
        model,
        scratch,
        batch=settings.batch,
        warmup=settings.warmup,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        dataset_kwargs={"skip_prepare_dataset": True},
        part=part,
        seed=seed,
        autocast=autocast,
    )


def _optimizer(model: LanguageModel, settings: ColdStart) -> torch.optim.Optimizer:
    """AdamW for all weights, or Muon for the inner matrices and AdamW for embeddings, norms and biases."""
    betas = (0.9, 0.95)
    if settings.optimizer == "adamw":
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=settings.learning_rate, betas=betas, weight_decay=settings.weight_decay)
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(layer.weight) for layer in layers if layer is not None}
    trained = [p for p in model.parameters() if p.requires_grad]
    inner = [p for p in trained if p.ndim == 2 and id(p) not in embeddings]
    rest = [p for p in trained if p.ndim != 2 or id(p) in embeddings]
    return _Both(
        torch.optim.Muon(inner, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay),
        torch.optim.AdamW(rest, lr=settings.learning_rate, betas=betas, weight_decay=settings.weight_decay),
    )


class _Both(torch.optim.Optimizer):
    """Several optimisers as one, so that one scheduler drives all of them."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([dict(group) for part in parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        groups = iter(self.param_groups)
        for part in self.parts:
            for own in part.param_groups:
                own["lr"] = next(groups)["lr"]  # the scheduler's value
            part.step(closure)


def _examples(demonstrations: Sequence[Demonstration], prompt_weight: float) -> list[_Example]:
    """The rows that have tokens to learn.

    A slip (an expert's deliberate mistake) has weight 0: it is in the prompts of later steps, but the model must not learn
    to make it.
    """
    trees, slips = [each.tree for each in demonstrations], [each.slips for each in demonstrations]
    examples: list[_Example] = []
    for row, with_slips in zip(packed_sequences(trees, slips), packed_sequences(trees), strict=True):
        if row.sampled.any():
            ids = row.tokens.tolist()
            weights: list[float] = np.where(row.sampled, 1.0, np.where(with_slips.sampled, 0.0, prompt_weight)).tolist()
            labels = [token if weight else IGNORED for token, weight in zip(ids, weights, strict=True)]
            mask = [1] * len(ids)
            examples.append(
                _Example(input_ids=ids, labels=labels, attention_mask=mask, weights=weights, demonstration=row.tree)
            )
    return examples


def _fitting(
    examples: list[_Example], demonstrations: Sequence[Demonstration], most: int, tell: Callable[[str], None]
) -> list[_Example]:
    """The rows of at most `most` tokens (0: all rows). A longer row is left out whole, since RL has no prompts that are cut.

    Raises:
        UsageError: no row is short enough.
    """
    short = [row for row in examples if not most or len(row["input_ids"]) <= most]
    if len(short) == len(examples):
        return short
    everything, left = (sum(len(row["input_ids"]) for row in rows) for rows in (examples, short))
    long = [row["demonstration"] for row in examples if len(row["input_ids"]) > most]
    tasks = list(dict.fromkeys(demonstrations[number].tree.task.id for number in long))
    more = f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else ""
    sentence = (
        f"{len(long)} of {len(examples)} rows exceed cold_start.max_tokens {most} and are left out whole, "
        f"{1 - left / everything:.1%} of the tokens; they are of {', '.join(tasks[:NAMED])}{more}"
    )
    if not short:
        raise UsageError(f"{sentence}: raise it, or 0 for no limit")
    tell(f"cold start: {sentence}")
    return short


class _Bucketed(torch.utils.data.Sampler[int]):
    """Puts rows of similar length into one batch, and the batches into random order.

    So there is little padding, and the length of rows has no trend.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.rng = lengths, batch, random.Random(seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        self.rng.shuffle(order)
        pool = BATCHES_SORTED_TOGETHER * self.batch
        batches: list[list[int]] = []
        for first in range(0, len(order), pool):
            alike = sorted(order[first : first + pool], key=lambda row: self.lengths[row])
            batches += [alike[i : i + self.batch] for i in range(0, len(alike), self.batch)]
        last = batches.pop()  # this batch may not be full; it must be the last one, since the loader cuts full batches
        self.rng.shuffle(batches)
        return iter([row for batch in [*batches, last] for row in batch])


class _Collator:
    """Pads ids, labels and weights on the right."""

    def __init__(self, pad: int) -> None:
        self.fill = {"input_ids": pad, "labels": IGNORED, "attention_mask": 0, "weights": 0.0}

    def __call__(self, examples: list[Mapping[str, list[float]]]) -> dict[str, torch.Tensor]:
        return {
            name: nn.utils.rnn.pad_sequence([torch.tensor(e[name]) for e in examples], batch_first=True, padding_value=value)
            for name, value in self.fill.items()
        }


def _trainer(settings: ColdStart, note: Note, ranks: Ranks) -> type[Any]:
    """TRL's trainer with this package's loss, where each token may have a weight; it reports its losses to `note`."""
    from transformers import PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    class Weighted(SFTTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(callbacks=[watch(note)], **arguments)  # pyright: ignore[reportUnknownMemberType]
            self.remove_callback(PrinterCallback)

        def _get_train_sampler(self, train_dataset: object = None) -> torch.utils.data.Sampler[int]:
            dataset = cast("Mapping[str, Sequence[Sequence[int]]]", train_dataset or self.train_dataset)  # pyright: ignore[reportUnknownMemberType]
            return _Bucketed([len(ids) for ids in dataset["input_ids"]], settings.batch, self.args.seed)

        def compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride]  (its model is any module)
            self,
            model: LanguageModel,
            inputs: dict[str, torch.Tensor],
            return_outputs: bool = False,
            num_items_in_batch: torch.Tensor | int | None = None,
        ) -> torch.Tensor | tuple[torch.Tensor, object]:
            whole = inputs.pop("weights")
            own, counts = own_rows(len(whole), ranks)
            weights, ids, labels = whole[own], inputs["input_ids"][own], inputs["labels"][own]
            if not settings.prompt_weight:
                logprobs, _ = token_logprobs(model, ids, labels != IGNORED, 1.0)
                trained = (inputs["labels"] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
                loss = -logprobs.sum() * counts / trained
                return (loss, {}) if return_outputs else loss
            # Rows are padded on the right, so under causal attention no token sees the padding.
            outputs = model(input_ids=ids, use_cache=False)
            losses = nn.functional.cross_entropy(
                outputs.logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="none"
            )
            loss = (losses * weights[:, 1:].flatten()).sum() * counts / whole[:, 1:].flatten().sum()
            return (loss, outputs) if return_outputs else loss

    return Weighted
