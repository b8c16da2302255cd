"""`spark-rl view`: serve a live page of runs while they train."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spark_rl.commands.base import Call
from spark_rl.errors import MissingExtra, UsageError

__all__ = ["view"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class _View:
    """Serve the page of runs, or of all runs in a folder; new runs appear on the page. Ctrl-C ends it."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than the default lets other machines read the runs, without a password."""
    port: int = 8321
    """Port to listen on; 0 takes a free one."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise UsageError(f"--port is {self.port}: it must be from 0 to {2**16 - 1}")


def view(call: Call) -> int:
    """Serve until stopped."""
    places, call = call.positionals("a run directory, or several")
    options = call.options(_View())
    try:
        import uvicorn

        from spark_rl.server.app import application
    except ImportError as error:
        raise MissingExtra("spark-rl view", "server") from error
    from spark_rl.server.shelf import Shelf

    # Each request reads the run again; the question about its code is asked only once.
    shelf = Shelf([Path(place) for place in places], foreign=cache(call.trusts))
    listener = _listen(options.host, options.port)
    address, port = listener.getsockname()[:2]
    hosts = [*LOOPBACK, "[::1]"] if options.host in LOOPBACK else ["*"]
    shown = f"[{address}]" if ":" in address else address
    runs = f"{len(shelf.keys)} run{'s' * (len(shelf.keys) > 1)}"
    print(f"{runs} at http://{shown}:{port}/ (Ctrl-C ends it)", flush=True)
    settings = uvicorn.Config(application(shelf, hosts), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(settings).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; a port in use is reported in one sentence."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port} ({error.strerror or error}): choose another --host or --port"
        ) from error
