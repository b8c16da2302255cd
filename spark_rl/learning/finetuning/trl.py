# pyright: standard
"""What fine-tuning on rows (`sft`) and on pairs of trajectories (`dpo`) share: TRL's settings, the model while it learns.

Invariants
----------
* Nothing is printed, saved, cut or templated behind our back.
* A 16-bit model is trained in 32 bits under autocast and rounded once, at the end; adapters are trained beside it and
  merged, so that what comes out is a whole model, which later adapters start from.
* What the libraries put around a model's forward pass while it learns is taken off again.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spark_rl.errors import MissingExtra
from spark_rl.learning.update import recomputing
from spark_rl.models import adapters
from spark_rl.models.weights import Weights

__all__ = ["configured", "part_of_batch", "require_trl", "trainable", "watch"]


def require_trl(what: str) -> None:
    """Refuse before any work what needs the extra `sft`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import datasets  # noqa: F401
        import trl  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra(what, "sft") from error


@contextlib.contextmanager
def trainable(model: Any, weights: Weights, seed: int) -> Iterator[bool]:
    """The model as it is trained, then as it was held before; whether it computes under autocast meanwhile."""
    precision = model.dtype
    if weights.lora_rank:
        adapters.add(model, weights, seed=seed)
    else:
        model.float()
    with recomputing(model, weights.checkpointing):
        yield model.dtype != precision
    vars(model).pop("forward", None)  # TRL's fused head, accelerate's autocast
    if weights.lora_rank:
        adapters.merge(model)
    model.to(precision).eval()


def part_of_batch(batch: int, cells: int, token_budget: int) -> int:
    """How many of a batch go through the model at once: the largest part whose tokens fit the budget, at least one.

    Args:
        batch: rows (or pairs) of an optimiser step.
        cells: tokens of the largest of them, padding included.
        token_budget: most tokens of a forward pass.
    """
    return max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * cells <= token_budget))


def configured(
    kind: type[Any], model: Any, scratch: str, *, batch: int, part: int, warmup: float, seed: int, autocast: bool, **own: Any
) -> Any:
    """A configuration of one of TRL's trainers: what all of ours have in common, and its own settings.

    Args:
        kind: the class, such as `SFTConfig`.
        model: what is trained; its device is used.
        scratch: a folder that the library wants and nothing is written to.
        batch: rows (or pairs) of an optimiser step.
        part: how many of them go through the model at once.
        warmup: share of the steps with a rising learning rate.
        seed: of the order.
        autocast: whether to compute in bfloat16.
        own: what else the class takes.
    """
    device = model.device.type
    with warnings.catch_warnings():
        # Checkpointing has another name from one version of transformers to the next; both take this one.
        warnings.simplefilter("ignore", FutureWarning)
        return kind(
            output_dir=scratch,
            per_device_train_batch_size=part,
            gradient_accumulation_steps=batch // part,
            warmup_steps=warmup,  # below 1: a share of all steps
            max_grad_norm=1.0,
            seed=seed,
            data_seed=seed,
            remove_unused_columns=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            bf16=autocast,
            gradient_checkpointing=False,
            use_cpu=device == "cpu",
            dataloader_pin_memory=device != "cpu",
            **own,
        )


def watch(note: Callable[[int, int, Mapping[str, float]], None]) -> Any:
    """A callback that tells `note` of every optimiser step: its number, how many there are, and what was logged of it."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                note(state.global_step, state.max_steps, logs)

    return Watch()
