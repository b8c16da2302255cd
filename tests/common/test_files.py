"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from spark_rl.common.files import atomic_directory, write_bytes, write_json
from spark_rl.errors import StorageError


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_has_the_permissions_that_the_umask_leaves(tmp_path, umask):
    write_json(tmp_path / "deep" / "file.json", {"a": 1})
    with atomic_directory(tmp_path / "folder") as work:
        (work / "inside").touch()
    assert mode(tmp_path / "deep" / "file.json") == 0o640
    assert mode(tmp_path / "folder") == 0o750


def test_a_file_is_replaced_in_one_step_and_nothing_is_left_beside_it(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_folder_that_could_not_be_filled_leaves_what_was_there(tmp_path, error):
    with atomic_directory(tmp_path / "folder") as work:
        (work / "good").touch()

    def replace() -> None:
        with atomic_directory(tmp_path / "folder") as work:
            (work / "half").touch()
            raise error

    with pytest.raises((StorageError, KeyboardInterrupt)) as caught:
        replace()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["folder", "folder/good"]
    if isinstance(error, OSError):
        assert str(caught.value).endswith("(No space left on device); free some space or choose another --out")


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written"):
        write_bytes(tmp_path / "file" / "below", b"")
    with pytest.raises(StorageError, match="could not be written"), atomic_directory(tmp_path / "file" / "below"):
        pass
