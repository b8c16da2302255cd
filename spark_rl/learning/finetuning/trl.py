"""Code that fine-tuning on rows (`sft`) and on pairs of trajectories (`dpo`) share: TRL's settings, the model in training.

Invariants
----------
* TRL prints nothing, saves nothing, and neither cuts nor templates any text.
* A 16-bit model is trained in 32 bits under autocast and rounded once, at the end. Adapters are trained beside the model and
  then merged, so the result is a whole model, and later adapters start from it.
* Ranks train one model together: each holds all of it and sees all batches, reads its part of the rows, and gets the sum of
  the gradients. So all take the steps of one process. To TRL each rank is a process by itself.
* The wrappers that the libraries put around a model's forward pass during training are removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from spark_rl.contracts import LanguageModel, Ranks
from spark_rl.errors import MissingExtra
from spark_rl.learning.update import recomputing
from spark_rl.models import adapters
from spark_rl.models.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainerCallback

__all__ = [
    "Advance",
    "Note",
    "configured",
    "own_rows",
    "part_of_batch",
    "require_trl",
    "silent",
    "together",
    "trainable",
    "watch",
]

ConfigT = TypeVar("ConfigT")
Advance = Callable[[int, int, float], None]
"""Called with (finished steps, all steps, loss) after each optimiser step."""
Note = Callable[[int, int, Mapping[str, float]], None]
"""Called with (finished steps, all steps, TRL's metrics) after each optimiser step."""


LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables of ranks from which accelerate concludes that it has to distribute the training."""


def silent(step: int, total: int, loss: float) -> None:
    """An `Advance` that reports nothing."""


def require_trl(what: str) -> None:
    """Check, before any work starts, that the extra `sft` is installed.

    Args:
        what: the feature that needs the extra, for the message.

    Raises:
        MissingExtra: the extra is not installed.
    """
    try:
        import datasets  # noqa: F401  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport]
        import trl  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise MissingExtra(what, "sft") from error


@contextlib.contextmanager
def trainable(model: LanguageModel, weights: Weights, seed: int) -> Generator[bool]:
    """Prepare a model for training, and restore its precision at the end; gives whether it computes under autocast."""
    precision = model.dtype
    if weights.lora_rank:
        adapters.add(model, weights, seed=seed)
    else:
        model.float()
    with recomputing(model, weights.checkpointing), _by_itself():
        yield model.dtype != precision
    attributes: dict[str, object] = vars(model)
    attributes.pop("forward", None)  # TRL's fused head and accelerate's autocast
    if weights.lora_rank:
        adapters.merge(model)
    cast("nn.Module", model).to(precision).eval()


@contextlib.contextmanager
def _by_itself() -> Generator[None]:
    """Hide from the libraries that the process is a rank: they would split batches and wrap the model in their own way."""
    hidden = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def together(kind: type[Any], ranks: Ranks) -> type[Any]:
    """A trainer of TRL whose losses and gradients are sums over ranks. Its `compute_loss` reads this rank's part."""
    if ranks.count == 1:
        return kind

    class Together(kind):
        def training_step(self, model: nn.Module, *inputs: Any) -> Tensor:
            loss = cast("Tensor", super().training_step(model, *inputs))  # pyright: ignore[reportUnknownMemberType]
            ranks.add([loss])
            if self.accelerator.sync_gradients:
                ranks.add(weight.grad for weight in model.parameters() if weight.grad is not None)
            return loss

    return Together


def own_rows(rows: int, ranks: Ranks) -> tuple[list[int], bool]:
    """This rank's rows of a batch, and whether they count: a rank for which there is none reads one that does not."""
    own = list(range(ranks.rank, rows, ranks.count))
    return own or [0], bool(own)


def part_of_batch(batch: int, cells: int, token_budget: int) -> int:
    """How many rows of a batch go through the model at once: the largest part that fits the token budget, at least one.

    Args:
        batch: rows (or pairs) in an optimiser step.
        cells: tokens of the largest row (or pair), padding included.
        token_budget: most tokens in a forward pass.
    """
    return max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * cells <= token_budget))


def configured(
    kind: Callable[..., ConfigT],
    model: LanguageModel,
    scratch: str,
    *,
    batch: int,
    part: int,
    warmup: float,
    seed: int,
    autocast: bool,
    **own: object,
) -> ConfigT:
    """A configuration of one of TRL's trainers: the settings that all trainers here share, and the trainer's own.

    Args:
        kind: the class of the configuration, such as `SFTConfig`.
        model: the model that is trained; training uses its device.
        scratch: a folder that the library asks for; nothing is written to it.
        batch: rows (or pairs) in an optimiser step.
        part: how many of them go through the model at once.
        warmup: share of the steps in which the learning rate rises.
        seed: seed of the order.
        autocast: whether to compute in bfloat16.
        own: further settings of the class.
    """
    device = model.device.type
    with warnings.catch_warnings():
        # The name of checkpointing changes between versions of transformers; all of them accept this name.
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


def watch(note: Note) -> TrainerCallback:
    """A callback for TRL's trainers that calls `note` after every optimiser step."""
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    class Watch(TrainerCallback):
        def on_log(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            logs: dict[str, float] | None = None,
            **_: object,
        ) -> None:
            if logs and "loss" in logs:
                note(state.global_step, state.max_steps, logs)

    return Watch()
