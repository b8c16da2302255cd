"""Fetch the official games from an archive, from a folder, or by the official download.

Invariants
----------
* Nothing is written outside the target, even from a malicious archive: only files with the names of game files are
  unpacked, to paths that are composed of the parts of these names.
* The folder of the games, or a split that is added to the folder, appears whole or not at all, and existing files are never
  overwritten. (The official download writes file by file, and continues where it stopped.)
"""

from __future__ import annotations

import importlib
import math
import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import IO, Self, cast

from spark_rl.contracts import Watcher
from spark_rl.environments.alfworld.games import OFFICIAL, data_folder, root_in
from spark_rl.environments.alfworld.inventory import Inventory, verify
from spark_rl.errors import EnvironmentFailure, MissingExtra, SparkError, StorageError, UsageError

__all__ = ["fetch"]

_PLACE = re.compile(
    rf"(?:(.*)/)?({'|'.join(OFFICIAL)})/([\w-]+)/([\w-]+)/(game\.tw-pddl|traj_data\.json|initial_state\.pddl)"
)
_ZSTD = b"\x28\xb5\x2f\xfd"
_PERCENT = re.compile(rb"([^\r\n]*?):? +(\d+)%\|")

_Files = Iterator[tuple[str, bytes, int]]
"""Path below the folder of the games, content, and how much of the source has been read."""


def fetch(source: Path | None, to: Path | None, *, link: bool, tell: Watcher) -> Inventory:
    """Fetch the games and verify them.

    Args:
        source: an archive (zip, tar, tar.gz, tar.zst ...) or a folder; None calls `alfworld-download`, unless all
            official games are in place.
        to: folder that has, or will have, `json_2.1.1`; None: `$ALFWORLD_DATA`, else `~/.cache/alfworld`.
        link: make a symbolic link to the folder `source`, instead of a copy.
        tell: receives the progress.

    Raises:
        UsageError: the source is missing, damaged or has no games, or the target already has some of its splits.
        StorageError: the target cannot be written.
        MissingExtra: there is no `alfworld-download`.
        EnvironmentFailure: `alfworld-download` failed.
    """
    target = data_folder() if to is None else to.expanduser().resolve()
    root = target if target.name == "json_2.1.1" else target / "json_2.1.1"
    if link and (source is None or not source.expanduser().is_dir()):
        raise UsageError("--link needs --from with a folder of unpacked games")
    if source is None:
        inventory = verify(root, tell) if root.is_dir() else None
        if inventory is not None and inventory.complete:
            return inventory
        _download(root.parent, force=inventory is not None and bool(inventory.broken), tell=tell)
    else:
        source = source.expanduser().resolve()
        if not source.exists():
            raise UsageError(f"--from {source}: there is no such file or folder")
        # A source that is the target itself is only verified.
        if root_in(source) != root:
            _place(source, root, link=link, tell=tell)
    if not root.is_dir():
        raise EnvironmentFailure(f"alfworld-download made no {root}; unpack an archive of the games by --from")
    return verify(root, tell)


def _place(source: Path, root: Path, *, link: bool, tell: Watcher) -> None:
    """Put the games of an archive or a folder in place."""
    work = root.with_name(f".{root.name}.{secrets.token_hex(4)}")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        if link:
            _refuse_taken(root, root)
            root.symlink_to(_folder_of_splits(source))
            return
        try:
            work.mkdir()
            _fill(work, source, root, tell)
            if root.is_dir():
                for split in work.iterdir():
                    split.replace(root / split.name)
            else:
                work.replace(root)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"{root} could not be written ({reason}); free some space or choose another --to") from error


def _fill(work: Path, source: Path, root: Path, tell: Watcher) -> None:
    folders, games = set[Path](), 0
    for place, content, done in _read(source, tell):
        file = work / place
        if file.parent not in folders:
            _refuse_taken(root / place.partition("/")[0], root)
            file.parent.mkdir(parents=True, exist_ok=True)
            folders.add(file.parent)
        file.write_bytes(content)
        games += file.name == "game.tw-pddl"
        tell.advance(done)
    if not games:
        raise UsageError(
            f"--from {source} holds no games (SPLIT/TASK/TRIAL/game.tw-pddl); "
            "those of the official download are in json_2.1.2_tw-pddl.zip"
        )


def _refuse_taken(place: Path, root: Path) -> None:
    if place.exists() or place.is_symlink():
        raise UsageError(f"{place} is there already; remove it, or choose another --to than {root.parent}")


def _read(source: Path, tell: Watcher) -> _Files:
    """The files of games in an archive or a folder."""
    if source.is_dir():
        files = _in_folder(source, tell)
    else:
        tell.phase(f"unpack {source.name} (MB)", math.ceil(source.stat().st_size / 1e6))
        files = (_in_zip if zipfile.is_zipfile(source) else _in_tar)(source)
    try:
        yield from files
    except SparkError:
        raise
    except Exception as error:  # each decoder raises errors of its own types
        if isinstance(error, OSError) and error.strerror:
            raise UsageError(f"--from {source} cannot be read ({error.strerror})") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"--from {source} cannot be unpacked ({reason}): it is damaged or no archive (zip, tar, tar.gz, tar.zst)"
        ) from error


def _placer(source: Path) -> Callable[[str], str | None]:
    """The function from a name in an archive to the path below the folder of the games; None for files to skip."""
    above = set[str]()

    def place(name: str) -> str | None:
        if (match := _PLACE.fullmatch(name)) is None:
            return None
        above.add(match[1] or ".")
        if len(above) > 1:
            raise UsageError(
                f"{source} holds games in {' and in '.join(sorted(above))}; unpack one and give --from its folder"
            )
        return "/".join(match.groups()[1:])

    return place


def _in_zip(source: Path) -> _Files:
    place_of = _placer(source)
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            if (place := place_of(member.filename)) is not None:
                yield place, archive.read(member), int(member.header_offset / 1e6)


class _Member(tarfile.TarInfo):
    """A member of an archive that must have its end mark; tarfile takes one that breaks off in a header for whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if bytes(buf) == bytes(tarfile.BLOCKSIZE):
                raise
            raise tarfile.ReadError(f"no end mark: {error}") from error


def _in_tar(source: Path) -> _Files:
    place_of = _placer(source)
    with (
        source.open("rb", buffering=0) as file,
        _decompressed(source, file) as stream,
        tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as archive,
    ):
        for member in archive:
            if member.isfile() and (place := place_of(member.name)) is not None:
                yield place, cast(IO[bytes], archive.extractfile(member)).read(), int(file.tell() / 1e6)


@contextmanager
def _decompressed(source: Path, file: FileIO) -> Generator[IO[bytes]]:
    """The tar stream, decompressed where it is in zstd: tarfile reads zstd only from Python 3.14 on, all else by itself."""
    is_zstd = file.read(len(_ZSTD)) == _ZSTD
    file.seek(0)
    if not is_zstd:
        yield cast(IO[bytes], file)
        return
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        program = shutil.which("zstd")
        if program is None:
            raise UsageError(
                f"--from {source} is compressed by zstd, which this Python cannot read: install the program zstd, "
                "or unpack it elsewhere and give --from the folder"
            ) from None
        with _piped([program, "-dcq"], file) as stream:
            yield stream
    else:
        with zstd.open(file) as stream:
            yield stream


@contextmanager
def _piped(command: list[str], file: FileIO) -> Generator[IO[bytes]]:
    """The output of a program that reads a file. Both share the file's position, so `file.tell()` shows the progress."""
    with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        stdout, stderr = cast(IO[bytes], process.stdout), cast(IO[bytes], process.stderr)
        try:
            yield stdout
            while stdout.read(1 << 20):  # padding after the archive's end
                pass
            if process.wait():
                raise tarfile.ReadError(stderr.read().decode(errors="replace").strip())
        finally:
            process.kill()


def _in_folder(source: Path, tell: Watcher) -> _Files:
    root = _folder_of_splits(source)
    files = sorted(file for split in OFFICIAL for file in root.glob(f"{split}/*/*/*"))
    wanted = [(match, file) for file in files if (match := _PLACE.fullmatch(file.relative_to(root).as_posix()))]
    tell.phase(f"copy from {source} (files)", len(wanted))
    for done, (match, file) in enumerate(wanted, start=1):
        yield match[0], file.read_bytes(), done


def _folder_of_splits(source: Path) -> Path:
    if (root := root_in(source)) is None:
        raise UsageError(f"--from {source}: no ALFWorld games there; name the folder that holds json_2.1.1 (or is it)")
    return root


def _download(to: Path, *, force: bool, tell: Watcher) -> None:
    """Let the official tool download and unpack; it downloads more than the games (an object detector, for instance)."""
    beside = Path(sys.executable).with_name("alfworld-download")
    program = str(beside) if beside.is_file() else shutil.which("alfworld-download")
    if program is None:
        raise MissingExtra("alfworld-download", "alfworld")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{to} could not be written ({error.strerror}); choose another --to") from error
    command = [program, "--data-dir", str(to), *(["--force"] if force else [])]
    tell.phase("alfworld-download")
    last, doing = b"", b""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            # Its progress bars end in a carriage return, not in a new line.
            for line in _lines(cast(IO[bytes], process.stdout)):
                if bar := _PERCENT.match(line):
                    if bar[1] != doing:
                        doing = bar[1]
                        tell.phase(f"{doing.decode(errors='replace')} (%)", 100)
                    tell.advance(int(bar[2]))
                else:
                    last = line
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        reason = " ".join(last.decode(errors="replace").split())[:300]
        raise EnvironmentFailure(
            f"alfworld-download failed ({reason or f'exit code {process.returncode}'}); "
            "call it again, or unpack an archive of the games by --from"
        )


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := os.read(stream.fileno(), 1 << 16):
        *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
        yield from filter(None, lines)
    if rest:
        yield rest
