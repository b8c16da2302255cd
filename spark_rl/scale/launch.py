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
from collections.abc import Sequence
from pathlib import Path

from spark_rl.errors import SparkError
from spark_rl.scale.group import LAUNCHER

__all__ = ["launch", "report"]

STOPPED = 130
"""Exit code of a rank that was stopped by Ctrl-C or SIGTERM."""


def launch(words: Sequence[str], ranks: int, directory: Path) -> None:
    """Run `spark-rl WORDS` as several ranks of this machine, until all have ended.

    Args:
        words: the command line.
        ranks: how many processes.
        directory: the run that they write, for messages.

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
        rank, failure = error.get_first_failure()
        if failure.exitcode == STOPPED:
            raise KeyboardInterrupt from None
        if failure.exitcode < 0:
            raise SparkError(
                f"rank {rank} of {ranks} was killed (signal {-failure.exitcode}); the last checkpoint is whole: go on with "
                f"--resume {directory}"
            ) from None
        if not failure.error_file_data:
            raise SparkError(f"rank {rank} of {ranks} failed; its error is printed above") from None
        raise SparkError(str(failure.message)) from None
    except SignalException:
        raise KeyboardInterrupt from None
    finally:
        del os.environ[LAUNCHER]


def report(sentence: str) -> None:
    """Tell the launcher why this rank fails, in the form that it reads. It raises the first failure of all ranks."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": "", "timestamp": str(int(time.time()))}
        Path(file).write_text(json.dumps({"message": {"message": sentence, "extraInfo": extra}}))
