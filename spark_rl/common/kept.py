"""Results on disk that are dear to compute: bytes by key, in the user's cache folder.

Invariants
----------
* What is read is what was last written under this key, by any process, or nothing. Who reads it checks it: a disk may damage
  it. Any file may be deleted at any time.
* The files take little more than the given megabytes: those used longest ago go first.
* A folder that cannot be read or written is as good as an empty one: nothing here raises.

The time of a file's last change is the time of its last use. The folder's size is checked at a process's first write and at
every `CHECKED`-th one, so each process may exceed the bound by so many results.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spark_rl.common.files import cache_folder, write_bytes
from spark_rl.errors import StorageError

__all__ = ["CHECKED", "Kept"]

CHECKED = 32
"""Number of writes between two checks of the size."""
_ROOM = 0.9
"""Share of the bound that stays when the bound was exceeded."""

_written: Counter[Path] = Counter()
"""Number of writes of this process by folder."""


@dataclass(frozen=True)
class Kept:
    """The results of one kind."""

    kind: str
    """Folder of the results, in `files.cache_folder()`."""
    megabytes: float
    """Most megabytes of all results of this kind."""

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return cache_folder() / self.kind

    def holds(self, key: str) -> bool:
        """Whether there is a result; it may be damaged."""
        return self._file(key).is_file()

    def read(self, key: str) -> bytes | None:
        """The result; None where there is none."""
        file = self._file(key)
        try:
            data = file.read_bytes()
        except OSError:
            return None
        with suppress(OSError):
            os.utime(file)
        return data

    def write(self, key: str, data: bytes) -> None:
        """Keep a result.

        Args:
            key: letters, digits and hyphens; names the result for good.
            data: the result.
        """
        with suppress(StorageError):
            write_bytes(self._file(key), data)
        if _written[self.folder] % CHECKED == 0:
            self._shrink()
        _written[self.folder] += 1

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.bin"

    def _shrink(self) -> None:
        """Delete the files used longest ago where all take too much."""
        with suppress(OSError):
            found = [(entry.stat(), entry.path) for entry in os.scandir(self.folder) if entry.name.endswith(".bin")]
            total, most = sum(status.st_size for status, _ in found), self.megabytes * 1e6
            if total <= most:
                return
            for status, path in sorted(found, key=lambda each: each[0].st_mtime_ns):
                if total <= _ROOM * most:
                    break
                Path(path).unlink(missing_ok=True)
                total -= status.st_size
