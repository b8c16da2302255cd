"""Trackers, which receive a copy of the run's log: TensorBoard and Weights & Biases.

Invariant: metrics.jsonl is the source. A tracker gets each row of metrics.jsonl under the same names, after the row is on
disk. A row that is logged again after a resume replaces the earlier one in TensorBoard; Weights & Biases keeps both.

Both libraries are extras and are imported when a recipe asks for them.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Protocol, cast

from spark_rl.config.codec import encode
from spark_rl.contracts import Tracker
from spark_rl.errors import MissingExtra
from spark_rl.runs.run import Run

__all__ = ["trackers"]


@contextlib.contextmanager
def trackers(run: Run) -> Generator[list[Tracker]]:
    """The trackers that the run's recipe asks for, closed at the end of the block.

    Raises:
        MissingExtra: the library of a tracker is not installed.
    """
    with contextlib.ExitStack() as stack:
        opened: list[Tracker] = []
        for wanted, tracker in ((run.recipe.log.tensorboard, _TensorBoard), (run.recipe.log.wandb, _WandB)):
            if wanted:
                opened.append(tracker(run))
                stack.callback(opened[-1].close)
        yield opened


class _Writer(Protocol):
    """The methods of TensorBoard's `SummaryWriter` that a tracker calls (torch does not annotate them)."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, /) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class _WandBRun(Protocol):
    """The methods of a run of Weights & Biases that a tracker calls."""

    def define_metric(self, name: str, *, step_metric: str) -> object: ...

    def log(self, data: dict[str, float], /) -> None: ...

    def finish(self) -> None: ...


class _TensorBoard:
    """Scalars in RUN/tensorboard; `tensorboard --logdir RUN` shows them."""

    def __init__(self, run: Run) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingExtra("log.tensorboard", "tensorboard") from error
        self._open = partial(cast("Callable[..., _Writer]", SummaryWriter), str(run.directory / "tensorboard"))
        self._writer: _Writer | None = None

    def log(self, row: Mapping[str, float]) -> None:
        step = int(row["iteration"])
        if self._writer is None:
            self._writer = self._open(purge_step=step)  # TensorBoard ignores this and later steps in earlier files
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _WandB:
    """A run of the project, named after the directory. A resumed run continues the same one."""

    def __init__(self, run: Run) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtra("log.wandb", "wandb") from error
        key = run.settings.get("wandb") or secrets.token_hex(4)
        run.save_settings(wandb=key)
        opened = wandb.init(
            project=run.recipe.log.wandb,
            id=key,
            name=run.directory.name,
            dir=str(run.directory),
            config=encode(run.recipe),
            resume="allow",
        )
        self._run = cast(_WandBRun, opened)
        self._run.define_metric("*", step_metric="iteration")

    def log(self, row: Mapping[str, float]) -> None:
        self._run.log(dict(row))

    def close(self) -> None:
        self._run.finish()
