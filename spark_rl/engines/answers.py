"""Storage of a server's answers: a file of JSON lines, in which an answer is found by the hash of its request.

Invariants
----------
* An answer is on disk before it is used, so that no answer is lost and no request is sent twice.
* Lines are only appended. A process that is killed while it writes leaves half a line; the next process cuts it off.
* One process at a time has the file open.
* A file holds answers, never the requests, the server's address or its key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from spark_rl.common.files import Lines, read_lines
from spark_rl.errors import StorageError

__all__ = ["Answer", "Answers", "key_of"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a server."""

    text: str
    finish: str
    """Why the answer ended: `stop`, `length`, `content_filter`, or another reason of the server."""
    prompt: int
    """Tokens read. This count and the two below are 0 where the server does not report them."""
    completion: int
    """Tokens written, hidden reasoning included."""
    cached: int
    """Tokens of `prompt` that the server had in its cache."""
    model: str
    """The model's name as the server reports it."""
    date: str
    """Day of the answer, such as `2026-01-31 UTC`."""


def key_of(asked: Mapping[str, object]) -> str:
    """The key of a request's answer: the hash of the request's JSON, which does not depend on the order of its fields."""
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Answers:
    """Answers by key, in a file or, without one, in memory only; a context manager.

    Raises:
        UsageError: another process has the file.
        StorageError: the file cannot be opened, or a whole line of it cannot be read.
    """

    def __init__(self, path: Path | None) -> None:
        self._known: dict[str, Answer] = {}
        self._lines = None if path is None else Lines(path, "keep these answers in another file")
        try:
            if path is not None:
                self._read(path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Answer | None:
        """The stored answer to the request with this key, or None."""
        return self._known.get(key)

    def put(self, key: str, answer: Answer) -> None:
        """Store an answer. On return the answer is on disk.

        Raises:
            StorageError: the answer could not be written.
        """
        if self._lines is not None:
            self._lines.add([{"key": key, **asdict(answer)}])
        self._known[key] = answer

    def close(self) -> None:
        """Close the file, so that another process can open it."""
        if self._lines is not None:
            self._lines.close()

    def _read(self, path: Path) -> None:
        for number, fields in enumerate(read_lines(path), start=1):
            try:
                key = fields.pop("key")
                self._known[key] = Answer(**fields)
            except (KeyError, TypeError, AttributeError) as error:
                raise StorageError(
                    f"{path} line {number} is no kept answer ({error}): take the line out, or name another file"
                ) from error
