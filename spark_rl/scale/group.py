"""The ranks of a process group of `torch.distributed`, as torchrun starts them.

Invariant: a process is a rank exactly if torchrun's launcher started it among others. Whoever starts it, the launcher or
`scale.launch`, its environment says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from spark_rl.common.follow import follow
from spark_rl.common.ranks import ALONE
from spark_rl.contracts import Ranks
from spark_rl.errors import SparkError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LAUNCHER", "Group", "agreed", "first", "joined", "launched", "started"]

T = TypeVar("T")
LAUNCHER = "SPARK_RL_LAUNCHER"
"""Environment variable of ranks with the id of the process in which `launch.launch` was called."""
PATIENCE = timedelta(days=7)
"""How long ranks wait for one another. A rank that has ended is noticed by the launcher, which ends the others."""
GRACE = 60
"""Seconds after which a rank whose peers are gone ends by itself."""


def started() -> int:
    """Of how many ranks this process is one; 1 where no launcher started it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def first() -> bool:
    """Whether this process is the first rank, or the only one."""
    return started() == 1 or os.environ["RANK"] == "0"


def launched() -> bool:
    """Whether `launch.launch` started this process, and so speaks for it."""
    return LAUNCHER in os.environ


def agreed(wanted: int) -> int:
    """The number of ranks: that of the launcher, if there is one.

    Raises:
        UsageError: the recipe wants another number than the launcher has started.
    """
    ranks = started()
    if ranks > 1 and wanted not in (1, ranks):
        raise UsageError(f"scale.ranks is {wanted}, but the launcher started {ranks} ranks: leave one of the two out")
    return ranks


class Group:
    """The ranks of the default process group."""

    def __init__(self, rank: int, count: int) -> None:
        """Made by `joined`."""
        self.rank, self.count = rank, count

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        import torch.distributed as dist

        values: list[T | None] = [None] * self.count
        dist.all_gather_object(values, value)  # pyright: ignore[reportUnknownMemberType]  untyped in torch
        return values  # pyright: ignore[reportReturnType]  all are filled

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks."""
        import torch.distributed as dist

        for tensor in tensors:
            dist.all_reduce(tensor)  # pyright: ignore[reportUnknownMemberType]  untyped in torch


def _take_gpu() -> None:
    """Hide all GPUs but this rank's, before torch looks for them. So `cuda` is that one, also in vLLM's processes."""
    local = int(os.environ["LOCAL_RANK"])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(local)
    elif local < len(named := visible.split(",")):
        os.environ["CUDA_VISIBLE_DEVICES"] = named[local]


@contextmanager
def joined(device: str) -> Generator[Ranks]:
    """The ranks of this process until the block ends: those of its launcher, or itself alone.

    Args:
        device: setting of the model's device. On CUDA a rank takes the GPU with its number on this machine, and NCCL;
            on a CPU ranks take gloo.
    """
    if started() == 1:
        yield ALONE
        return
    if launched():
        follow(int(os.environ[LAUNCHER]))
    _take_gpu()
    import torch.distributed as dist

    from spark_rl.models.load import device_of

    device = device_of(device)
    # Objects are gathered by gloo on any device.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        time.sleep(GRACE)  # meanwhile the launcher finds the rank that failed, and ends this one
        raise SparkError("another rank has ended") from None
    dist.destroy_process_group()
