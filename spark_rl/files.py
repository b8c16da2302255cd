"""Writing files so that nothing half-written is ever seen: into a sibling, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

from spark_rl.errors import StorageError

__all__ = ["atomic_directory", "cache_folder", "unwritable", "write_bytes", "write_json"]


def cache_folder() -> Path:
    """Where is kept what can be made again: `$XDG_CACHE_HOME/spark-rl`, else `~/.cache/spark-rl`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "spark-rl"


def unwritable(path: Path, error: Exception) -> StorageError:
    """What the user is told when a file cannot be written."""
    reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
    return StorageError(f"{path} could not be written ({reason}); free some space or choose another --out")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content in one step.

    Raises:
        StorageError: the file cannot be written (disk full, no permission); what was there before is untouched.
    """
    work = _sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with work.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            work.replace(path)
        except BaseException:
            work.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Replace a file by indented JSON, in one step."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


@contextlib.contextmanager
def atomic_directory(path: Path) -> Generator[Path]:
    """A fresh folder to fill, which becomes `path` (replacing what was there) when the block ends without an error."""
    work = _sibling(path)
    try:
        work.mkdir(parents=True)
        try:
            yield work
            for file in work.rglob("*"):
                if file.is_file():
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
            shutil.rmtree(path, ignore_errors=True)
            work.replace(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise unwritable(path, error) from error


def _sibling(path: Path) -> Path:
    """A hidden name beside `path`. What is made under it has the usual permissions, unlike what `tempfile` makes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
