"""Safe writing of files: a reader never sees a half-written file.

A file that is replaced is written under another name, flushed to disk and then renamed. A file that grows (`Lines`) is
flushed after each write. A killed process can leave half a line: readers ignore it, and the next writer cuts it off.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import secrets
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from spark_rl.errors import StorageError, UsageError

__all__ = [
    "Lines",
    "atomic_directory",
    "cache_folder",
    "compressed",
    "read_lines",
    "unwritable",
    "write_bytes",
    "write_json",
]


def cache_folder() -> Path:
    """Folder for files that can be made again: `$XDG_CACHE_HOME/spark-rl`, else `~/.cache/spark-rl`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "spark-rl"


def unwritable(path: Path, error: Exception) -> StorageError:
    """The error for a file that cannot be written."""
    reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
    return StorageError(f"{path} could not be written ({reason}); free some space or choose another --out")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content in one step.

    Raises:
        StorageError: the file cannot be written (disk full, no permission); the old content is untouched.
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


def compressed(data: bytes) -> bytes:
    """The data by gzip. Time stamp and level are fixed, so that equal data give equal files."""
    return gzip.compress(data, compresslevel=6, mtime=0)


def write_json(path: Path, value: object) -> None:
    """Replace a file by indented JSON, in one step."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


@contextlib.contextmanager
def atomic_directory(path: Path) -> Generator[Path]:
    """An empty folder to fill, which replaces `path` when the block ends without an error."""
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
    """A file of JSON lines that only grows and that one process holds; a context manager.

    Raises:
        UsageError: another process holds the file.
        StorageError: the file cannot be opened.
    """

    def __init__(self, path: Path, instead: str = "give another --out") -> None:
        """Open the file and cut off a half-written last line; `instead` is the advice if another process holds it."""
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
        """Release the file."""
        self._file.close()

    def add(self, values: Sequence[object]) -> None:
        """Append one line for each value; on return the lines are on disk.

        Raises:
            StorageError: the lines could not be written.
        """
        data = "".join(json.dumps(value) + "\n" for value in values).encode()
        try:
            left = memoryview(data)
            while left:  # a full disk first takes a part of the data; the next write raises
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._size)  # the next line must not continue half a line
            raise unwritable(self.path, error) from error
        self._size += len(data)


def read_lines(path: Path) -> list[Any]:
    """The values of a file of JSON lines, without a half-written last line.

    Raises:
        StorageError: a line is no JSON.
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
    """Size in bytes of the complete lines of a file."""
    return path.read_bytes().rfind(b"\n") + 1


def _sibling(path: Path) -> Path:
    """A hidden name beside `path`. Files under this name have the usual permissions, unlike those of `tempfile`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
