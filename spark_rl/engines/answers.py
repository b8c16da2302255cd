"""What a server has answered, kept: a file of JSON lines, found again by the hash of what was asked.

Invariants
----------
* An answer is on disk before anybody uses it, so that none is lost and none is asked for again.
* Lines are only ever appended. A process killed while it wrote leaves half a line, which the next one cuts off.
* One process at a time has the file.
* A file holds answers, never what was asked, nor where, nor with which key.
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
    """Why it ended: `stop`, `length`, `content_filter`, or what else the server says."""
    prompt: int
    """Tokens read; 0 where the server does not say, here and below."""
    completion: int
    """Tokens written, hidden reasoning included."""
    cached: int
    """Tokens of `prompt` that the server had kept."""
    model: str
    """The model's name in the server's words."""
    date: str
    """Day it came, `2026-01-31 UTC`."""


def key_of(asked: Mapping[str, object]) -> str:
    """The hash that a request's answer is found by: that of its JSON, whatever the order of its fields."""
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
        """The answer to what has this key, if it has come."""
        return self._known.get(key)

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer: on return it is on disk.

        Raises:
            StorageError: it could not be written.
        """
        if self._lines is not None:
            self._lines.add([{"key": key, **asdict(answer)}])
        self._known[key] = answer

    def close(self) -> None:
        """Let go of the file."""
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
