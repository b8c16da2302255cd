# pyright: standard
"""Cold start: supervised fine-tuning on demonstrations, through TRL's SFTTrainer.

Invariant: the tokens that are learnt are those that RL will feed and sample: rows are packed by `batch.py` from
demonstrations rendered by `prompting.py`, and handed to the trainer as ids with labels, so nothing is tokenised,
truncated or templated a second time.

The loss is on completions. With `ColdStart.prompt_weight` the prompt's tokens count a little too, and with
`optimizer="muon"` the matrices are trained by Muon: both matter for a model that learns its language from nothing.

Completions alone reach the output layer (`loss.token_logprobs`), and a batch goes through the model in parts that fit the
token budget. A row longer than `ColdStart.max_tokens` is left out whole, and told.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from spark_rl.config.recipe import ColdStart
from spark_rl.data.format import Demonstration
from spark_rl.errors import UsageError
from spark_rl.learning.batch import packed_sequences
from spark_rl.learning.finetuning.trl import configured, part_of_batch, require_trl, trainable, watch
from spark_rl.models.weights import Weights
from spark_rl.objective.loss import token_logprobs

__all__ = ["cold_start"]

Example = dict[str, Any]

IGNORED = -100
BATCHES_SORTED_TOGETHER = 16
NAMED = 5
"""Tasks at most that are named where rows are left out."""


def cold_start(
    model: Any,
    tokenizer: Any,
    demonstrations: Sequence[Demonstration],
    settings: ColdStart,
    *,
    seed: int,
    weights: Weights = Weights(),
    token_budget: int = 16384,
    advance: Callable[[int, int, float], None] = lambda *_: None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Fine-tune the model in place.

    Args:
        model: a transformers causal language model.
        tokenizer: its tokenizer.
        demonstrations: with token ids (`data.demonstrations.tokenize`).
        settings: epochs, batch, optimiser and so on.
        seed: of the order of rows.
        weights: which are trained.
        token_budget: most tokens, padding included, of one forward pass; a single row may exceed it.
        advance: told (finished steps, all steps, loss) as training goes on.
        tell: told in one sentence which rows are left out as too long.

    Returns:
        `loss` (mean over the last epoch), `steps` and `tokens` (seen in all, padding aside).

    Raises:
        MissingExtra: TRL is not installed.
        UsageError: no row is short enough.
    """
    require_trl("the cold start")
    from datasets import Dataset

    examples = _fitting(_examples(demonstrations, settings.prompt_weight), demonstrations, settings.max_tokens, tell)
    longest = max((len(example["input_ids"]) for example in examples), default=1)
    # Where prompts count, a batch is one pass: its mean is over weights that its parts do not know of each other.
    part = settings.batch if settings.prompt_weight else part_of_batch(settings.batch, longest, token_budget)
    losses: list[float] = []

    def note(step: int, total: int, logs: Mapping[str, float]) -> None:
        losses.append(logs["loss"])
        advance(step, total, logs["loss"])

    with tempfile.TemporaryDirectory() as scratch, trainable(model, weights, seed) as autocast:
        trainer = _trainer(settings, note)(
            model=model,
            args=_config(settings, model, scratch, part=part, seed=seed, autocast=autocast),
            train_dataset=Dataset.from_list(examples),
            processing_class=tokenizer,
            data_collator=_Collator(tokenizer.pad_token_id),
            optimizers=(_optimizer(model, settings), None),
        )
        trainer.train()
    epoch = max(1, len(losses) // settings.epochs)
    tokens = settings.epochs * sum(len(example["input_ids"]) for example in examples)
    return {"loss": sum(losses[-epoch:]) / epoch if losses else 0.0, "steps": len(losses), "tokens": tokens}


def _config(settings: ColdStart, model: Any, scratch: str, **rest: Any) -> Any:
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
        **rest,
    )


def _optimizer(model: Any, settings: ColdStart) -> torch.optim.Optimizer:
    """AdamW for all weights, or Muon for the inner matrices and AdamW for embeddings, norms and biases."""
    betas = (0.9, 0.95)
    if settings.optimizer == "adamw":
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=settings.learning_rate, betas=betas, weight_decay=settings.weight_decay)
    embeddings = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    trained = [p for p in model.parameters() if p.requires_grad]
    inner = [p for p in trained if p.ndim == 2 and id(p) not in embeddings]
    rest = [p for p in trained if p.ndim != 2 or id(p) in embeddings]
    return _Both(
        torch.optim.Muon(inner, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay),
        torch.optim.AdamW(rest, lr=settings.learning_rate, betas=betas, weight_decay=settings.weight_decay),
    )


class _Both(torch.optim.Optimizer):
    """Two optimizers stepped as one, so that one scheduler drives both."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([dict(group) for part in parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        groups = iter(self.param_groups)
        for part in self.parts:
            for own in part.param_groups:
                own["lr"] = next(groups)["lr"]  # what a scheduler wrote
            part.step(closure)


def _examples(demonstrations: Sequence[Demonstration], prompt_weight: float) -> list[Example]:
    """Ids, labels and weights of each row with something to learn, and the number of its demonstration.

    What was said by mistake, a slip, has no weight at all: it is in the prompts of later steps, but is not to be said.
    """
    trees, slips = [shown.tree for shown in demonstrations], [shown.slips for shown in demonstrations]
    examples: list[Example] = []
    for row, said in zip(packed_sequences(trees, slips), packed_sequences(trees), strict=True):
        if row.sampled.any():
            ids = row.tokens.tolist()
            weights = np.where(row.sampled, 1.0, np.where(said.sampled, 0.0, prompt_weight)).tolist()
            labels = [token if weight else IGNORED for token, weight in zip(ids, weights, strict=True)]
            columns = {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids), "weights": weights}
            examples.append({**columns, "demonstration": row.tree})
    return examples


def _fitting(
    examples: list[Example], demonstrations: Sequence[Demonstration], most: int, tell: Callable[[str], None]
) -> list[Example]:
    """The rows of at most so many tokens (0: all). A longer one is left out whole; cut, it would be no prompt of RL's.

    Raises:
        UsageError: none is left.
    """
    kept = [row for row in examples if not most or len(row["input_ids"]) <= most]
    if len(kept) == len(examples):
        return kept
    everything, left = (sum(len(row["input_ids"]) for row in rows) for rows in (examples, kept))
    long = [row["demonstration"] for row in examples if len(row["input_ids"]) > most]
    tasks = list(dict.fromkeys(demonstrations[number].tree.task.id for number in long))
    more = f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else ""
    sentence = (
        f"{len(long)} of {len(examples)} rows exceed cold_start.max_tokens {most} and are left out whole, "
        f"{1 - left / everything:.1%} of the tokens; they are of {', '.join(tasks[:NAMED])}{more}"
    )
    if not kept:
        raise UsageError(f"{sentence}: raise it, or 0 for no limit")
    tell(f"cold start: {sentence}")
    return kept


class _Bucketed(torch.utils.data.Sampler[int]):
    """Rows of like length in one batch, batches in random order: little padding, and no drift from long to short."""

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
        last = batches.pop()  # perhaps not full: it must stay at the end, where the loader cuts batches
        self.rng.shuffle(batches)
        return iter([row for batch in [*batches, last] for row in batch])


class _Collator:
    """Pads ids, labels and weights on the right."""

    def __init__(self, pad: int) -> None:
        self.fill = {"input_ids": pad, "labels": IGNORED, "attention_mask": 0, "weights": 0.0}

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            name: nn.utils.rnn.pad_sequence([torch.tensor(e[name]) for e in examples], batch_first=True, padding_value=value)
            for name, value in self.fill.items()
        }


def _trainer(settings: ColdStart, note: Callable[[int, int, Mapping[str, float]], None]) -> type[Any]:
    """TRL's trainer with our loss (a weight a token where prompts count), which tells `note` its losses."""
    from transformers import PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    class Weighted(SFTTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(callbacks=[watch(note)], **arguments)
            self.remove_callback(PrinterCallback)

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            rows: Any = train_dataset or self.train_dataset
            lengths = [len(ids) for ids in rows["input_ids"]]
            return _Bucketed(lengths, settings.batch, self.args.seed)

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            weights = inputs.pop("weights")
            if not settings.prompt_weight:
                learnt = inputs["labels"] != IGNORED
                logprobs, _ = token_logprobs(model, inputs["input_ids"], learnt, 1.0)
                loss = -logprobs.sum() / (learnt.sum() if num_items_in_batch is None else num_items_in_batch)
                return (loss, {}) if return_outputs else loss
            # Rows are padded on the right, so under causal attention no token sees the padding.
            outputs = model(input_ids=inputs["input_ids"], use_cache=False)
            losses = nn.functional.cross_entropy(
                outputs.logits[:, :-1].flatten(0, 1).float(), inputs["labels"][:, 1:].flatten(), reduction="none"
            )
            weight = weights[:, 1:].flatten()
            loss = (losses * weight).sum() / weight.sum()
            return (loss, outputs) if return_outputs else loss

    return Weighted
