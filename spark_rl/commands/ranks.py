"""A command in several processes: the one that the user starts launches ranks, which repeat the command together."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from spark_rl.commands.base import Call, hush
from spark_rl.contracts import Ranks, Watcher
from spark_rl.scale.group import first, joined, launched, started

__all__ = ["launch_ranks", "speaks", "working"]


def launch_ranks(call: Call, words: Sequence[str], ranks: int, advice: str) -> bool:
    """Start the ranks of a command and wait for their end, unless this process is one of them or needs none.

    Args:
        call: the command's call.
        words: the command line that each rank runs.
        ranks: how many there are.
        advice: how the user can go on after a failure.

    Returns:
        Whether the work is done.

    Raises:
        SparkError: a rank failed or was killed.
        KeyboardInterrupt: the ranks were stopped.
    """
    if ranks == 1 or started() > 1:
        return False
    from spark_rl.scale.launch import launch

    flags = ["--yes", *(["--quiet"] if call.quiet else [])]  # the user has agreed to the recipe's code here
    launch([*words, *flags], ranks, advice)
    return True


def speaks() -> bool:
    """Whether this process prints the results of the command."""
    return not launched() and first()


@contextmanager
def working(call: Call, device: str) -> Generator[tuple[Ranks, Watcher]]:
    """The ranks of this process, and what watches the work; of several ranks the first shows its progress.

    Args:
        call: the command's call.
        device: setting of the model's device.
    """
    with joined(device) as ranks, replace(call, quiet=call.quiet or ranks.rank > 0).watching() as watcher:
        watcher.phase("start")
        hush()
        yield ranks, watcher
