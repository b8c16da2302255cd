"""Ranks of one machine, started by torchrun's elastic launcher through its Python interface.

Invariant: no rank outlives the others. When one ends with an error or is killed, the launcher ends the rest, and the error
of the rank that failed first is raised here. When the launcher is killed, its ranks end too (`common.follow`).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from spark_rl.errors import SparkError
from spark_rl.scale.group import LAUNCHER

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

__all__ = ["launch", "report"]

STOPPED = 130
"""Exit code of a rank that was stopped by Ctrl-C or SIGTERM."""


def launch(words: Sequence[str], ranks: int, advice: str) -> None:
    """Run `spark-rl WORDS` as several ranks of this machine, until all have ended.

    Args:
        words: the command line.
        ranks: how many processes.
        advice: the command that goes on after a failure, for messages.

    Raises:
        SparkError: a rank failed or was killed.
        KeyboardInterrupt: the ranks were stopped.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # its reports repeat ours with tracebacks
    os.environ[LAUNCHER] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks set their own number
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody else can connect to the ranks of one machine
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "spark_rl", *words)
    except ChildFailedError as error:
        raise _cause(error.failures, ranks, advice) from None
    except SignalException:
        raise KeyboardInterrupt from None
    finally:
        del os.environ[LAUNCHER]


def _cause(failures: Mapping[int, ProcessFailure], ranks: int, advice: str) -> BaseException:
    """What the first rank that failed has reported, or how it ended. The launcher stops the others, which is no failure."""
    failed = sorted((one for one in failures.values() if one.exitcode != STOPPED), key=lambda one: one.timestamp)
    if not failed:
        return KeyboardInterrupt()
    for one in failed:
        if isinstance(told := one.error_file_data["message"], dict):  # by `report`, however the process ended after it
            return SparkError(cast("dict[str, str]", told)["message"])
    first = failed[0]
    if first.exitcode < 0:
        return SparkError(
            f"rank {first.local_rank} of {ranks} was killed (signal {-first.exitcode}); what was saved is whole: go on with "
            f"{advice}"
        )
    return SparkError(f"rank {first.local_rank} of {ranks} failed; its error is printed above")


def report(sentence: str) -> None:
    """Tell the launcher why this rank fails, in the form that it reads. It raises the first failure of all ranks."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": "", "timestamp": str(int(time.time()))}
        Path(file).write_text(json.dumps({"message": {"message": sentence, "extraInfo": extra}}))
