"""Results kept on disk: read as written, bounded, and never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spark_rl.common import kept
from spark_rl.common.files import cache_folder
from spark_rl.common.kept import Kept


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "_written", type(kept._written)())
    return cache_folder() / "things"


def test_what_was_written_last_is_read(folder: Path) -> None:
    things = Kept("things", 1)
    assert things.read("a") is None
    assert not things.holds("a")
    things.write("a", b"old")
    things.write("a", b"new")
    assert things.read("a") == b"new"
    assert things.holds("a")
    assert [path.name for path in folder.iterdir()] == ["a.bin"]


def test_a_result_may_be_deleted_at_any_time(folder: Path) -> None:
    things = Kept("things", 1)
    things.write("a", b"x")
    (folder / "a.bin").unlink()
    assert things.read("a") is None
    folder.rmdir()
    assert things.read("a") is None
    things.write("a", b"y")
    assert things.read("a") == b"y"


def test_what_was_used_longest_ago_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "CHECKED", 1)
    things = Kept("things", 0.001)  # 1,000 bytes
    for age, key in enumerate("dcba"):
        things.write(key, bytes(250))
        os.utime(folder / f"{key}.bin", (age, age))
    assert things.read("d") == bytes(250)  # used just now, so c is the one used longest ago
    things.write("e", bytes(250))
    assert sorted(path.stem for path in folder.iterdir()) == ["a", "d", "e"]  # 750 bytes: at most nine tenths stay


def test_a_folder_that_cannot_be_used_is_as_good_as_an_empty_one(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file in the way")
    things = Kept("things", 1)
    things.write("a", b"x")
    assert things.read("a") is None
    assert not things.holds("a")
