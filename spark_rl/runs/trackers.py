"""The run's log in other places: TensorBoard and Weights & Biases.

Invariant: metrics.jsonl is the source. A tracker gets each of its rows under the same names, after the row is on disk. A row
that is logged again after a resume replaces the earlier one in TensorBoard; Weights & Biases keeps both.

Both libraries are extras and are imported when a recipe asks for them.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, cast

from spark_rl.config.codec import encode
from spark_rl.contracts import Tracker
from spark_rl.errors import MissingExtra
from spark_rl.runs.run import Run

__all__ = ["trackers"]


@contextlib.contextmanager
def trackers(run: Run) -> Generator[list[Tracker]]:
    """The trackers that the run's recipe asks for, closed at the end of the block.

    Raises:
        MissingExtra: the library of one is not installed.
    """
    with contextlib.ExitStack() as stack:
        opened: list[Tracker] = []
        for wanted, tracker in ((run.recipe.log.tensorboard, _TensorBoard), (run.recipe.log.wandb, _WandB)):
            if wanted:
                opened.append(tracker(run))
                stack.callback(opened[-1].close)
        yield opened


class _TensorBoard:
    """Scalars in RUN/tensorboard; `tensorboard --logdir RUN` shows them."""

    def __init__(self, run: Run) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingExtra("log.tensorboard", "tensorboard") from error
        self._open: Callable[..., Any] = partial(SummaryWriter, str(run.directory / "tensorboard"))
        self._writer: Any = None

    def log(self, row: Mapping[str, float]) -> None:
        step = int(row["iteration"])
        if self._writer is None:
            self._writer = self._open(purge_step=step)  # what earlier files say of steps from this one on is dropped
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _WandB:
    """A run of the project, named after the directory; resuming goes on with the same one."""

    def __init__(self, run: Run) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtra("log.wandb", "wandb") from error
        library = cast(Any, wandb)
        key = run.settings.get("wandb") or secrets.token_hex(4)
        run.save_settings(wandb=key)
        self._run = library.init(
            project=run.recipe.log.wandb,
            id=key,
            name=run.directory.name,
            dir=str(run.directory),
            config=encode(run.recipe),
            resume="allow",
        )
        self._run.define_metric("*", step_metric="iteration")

    def log(self, row: Mapping[str, float]) -> None:
        self._run.log(dict(row))

    def close(self) -> None:
        self._run.finish()
