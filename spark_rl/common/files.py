"""Writing files so that nothing half-written is ever seen.

A file that is replaced is written into a sibling, flushed to disk, then renamed. One that grows (`Lines`) is flushed line by
line; half a line, which a killed process leaves, is cut off by the next one and ignored by readers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from spark_rl.errors import StorageError, UsageError

__all__ = ["Lines", "atomic_directory", "cache_folder", "read_lines", "unwritable", "write_bytes", "write_json"]


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


class Lines:
    """A file of JSON lines that only grows, held by one process; a context manager.

    Raises:
        UsageError: another process has it.
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path, instead: str = "give another --out") -> None:
        """Open it, cutting off a half-written last line; `instead` is what to do where another process has it."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise UsageError(f"{path} is being written by another process: wait for it, or {instead}") from error
        self._size = _whole(path)
        self._file.truncate(self._size)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def add(self, values: Sequence[Any]) -> None:
        """Append values, a line each; on return they are on disk.

        Raises:
            StorageError: they could not be written.
        """
        data = "".join(json.dumps(value) + "\n" for value in values).encode()
        try:
            left = memoryview(data)
            while left:  # a disk that fills up first takes a part, and says so at the next
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._size)  # what follows must not be glued to half a line
            raise unwritable(self.path, error) from error
        self._size += len(data)


def read_lines(path: Path) -> list[Any]:
    """The values of a file of JSON lines, without a half-written last one.

    Raises:
        StorageError: a whole line is no JSON.
    """
    values: list[Any] = []
    for number, line in enumerate(path.read_bytes()[: _whole(path)].splitlines(), start=1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise StorageError(
                f"{path} has a line {number} that is no JSON ({error}): delete the line or the file"
            ) from error
    return values


def _whole(path: Path) -> int:
    """Size of a file's whole lines in bytes."""
    return path.read_bytes().rfind(b"\n") + 1


def _sibling(path: Path) -> Path:
    """A hidden name beside `path`. What is made under it has the usual permissions, unlike what `tempfile` makes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
