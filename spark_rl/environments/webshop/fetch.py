"""Fetch the official files from a folder or from their authors' server, and verify each of them.

Invariants
----------
* A file appears under its name whole and verified, or not at all; a verified file is not fetched again.
* Verified means: size and SHA-256 equal those of a known version, or those recorded when the file was fetched (in
  `SHA256SUMS` beside the file), and every record of the file could be read.

The authors publish no hashes. For some files only the size is known, for the large files not even the size. Such a file is
read as a whole and its hash is recorded, so that a later change is noticed; `Found.unproven` names these files.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spark_rl.common.files import write_bytes
from spark_rl.contracts import Watcher
from spark_rl.environments.webshop.catalogue import FILES, official
from spark_rl.errors import EnvironmentFailure, StorageError, UsageError

__all__ = ["ADDRESS", "Found", "fetch"]

ADDRESS = "https://drive.usercontent.google.com/download?id={id}&export=download&confirm=t"
"""Address of a file by its number."""
_NUMBERS = {
    "items_shuffle_1000.json": "1EgHdxQ_YxqIQlvvq5iKlCrkEKR6-j0Ib",
    "items_ins_v2_1000.json": "1IduG0xl544V_A_jv3tHXC0kyFi7PnyBu",
    "items_shuffle.json": "1A2whVgOO0euk5O13n2iYDM0bQRkkRduB",
    "items_ins_v2.json": "1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi",
    "items_human_ins.json": "14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O",
}
_KNOWN: dict[str, dict[int, str]] = {
    "items_shuffle_1000.json": {
        4_467_013: "",
        2_748_213: "3ab3874c3de73019631f2a6347dc3423c7eef9d30fbcf1499e7b358645296bc5",
    },
    "items_ins_v2_1000.json": {147_099: "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f"},
    "items_human_ins.json": {
        5_137_548: "",
        5_640: "8bc0ae02b37351395091c55b29352ba21a26a231d093c151cf1a83847ca66359",
    },
}
"""Bytes and SHA-256 of the known versions: the authors' files (two hashes are unknown), and smaller files without the keys
that the shop never reads, with the human instructions for their products only."""
_SUMS = "SHA256SUMS"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Found:
    """The official files of a folder."""

    root: Path
    files: tuple[tuple[str, int, str], ...]
    """Name, bytes and SHA-256."""
    products: int
    goals: int
    """Number of products with a synthetic instruction."""
    unproven: tuple[str, ...]
    """Files whose hash could not be compared, only recorded."""
    broken: tuple[str, ...] = ()

    @property
    def setting(self) -> tuple[str, str]:
        """Environment variable that names this folder, and its value."""
        return "WEBSHOP_DATA", str(self.root)

    def table(self) -> list[tuple[str, ...]]:
        """The rows of a table of the files, heading first."""
        return [("file", "bytes", "sha256"), *((name, f"{size:,}", digest[:16]) for name, size, digest in self.files)]

    def remarks(self) -> list[str]:
        """The number of products, and the files whose hash could not be compared."""
        lines = [f"all {self.products:,} products were read; {self.goals:,} of them have an instruction"]
        if self.unproven:
            lines.append(
                f"no published hash is known for {', '.join(self.unproven)}: "
                f"each was read as a whole, and its hash is recorded in {_SUMS}"
            )
        return lines


def fetch(source: Path | None, to: Path, *, size: str, link: bool, tell: Watcher, address: str = ADDRESS) -> Found:
    """Fetch the files of a size and verify them.

    Args:
        source: a folder with the files; None downloads the files that are not in place.
        to: the folder for the files.
        size: `small` or `full`.
        link: make symbolic links to the files in `source`, instead of copies.
        tell: receives the progress.
        address: address of a file, where `{id}` stands for its number.

    Raises:
        UsageError: a file is missing, is no known version, or is damaged.
        EnvironmentFailure: the download failed, or a record cannot be read.
        StorageError: the folder cannot be written.
    """
    if link and source is None:
        raise UsageError("--link needs --from with the folder of the files")
    if source is not None and not source.is_dir():
        raise UsageError(f"--from {source}: there is no such folder")
    recorded = _recorded(to)
    files: list[tuple[str, int, str]] = []
    for name in FILES[size]:
        place = to / name
        if source is not None and source.resolve() != to.resolve():
            if not (source / name).is_file():
                raise UsageError(f"--from {source} lacks {name}, which the {size} catalogue needs")
            with _arriving(place) as work:
                _copy(source / name, work, link=link, tell=tell)
                files.append((name, *_verified(work, name, f"{source / name}", _recorded(source))))
        elif place.is_file():
            files.append((name, *_verified(place, name, f"{place} (delete it first)", recorded)))
        elif source is not None:
            raise UsageError(f"--from {source} lacks {name}, which the {size} catalogue needs")
        else:
            with _arriving(place) as work:
                _download(address.format(id=_NUMBERS[name]), name, work, tell)
                files.append((name, *_verified(work, name, f"what was downloaded as {name}", {})))
    return _read(to, size, files, recorded, tell)


def _read(to: Path, size: str, files: list[tuple[str, int, str]], recorded: dict[str, str], tell: Watcher) -> Found:
    """Read every record, and record the hashes."""
    tell.phase("read the products")
    products = goals = 0
    for product in official(to, size):
        products += 1
        goals += product.instruction is not None
        if not products % 1000:
            tell.advance(products)
    if not products:
        raise EnvironmentFailure(f"{to / FILES[size][0]} holds no product: fetch it again")
    sums = recorded | {name: digest for name, _, digest in files}
    write_bytes(to / _SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode())
    unproven = tuple(
        name for name, bytes_, digest in files if _KNOWN.get(name, {}).get(bytes_) != digest and recorded.get(name) != digest
    )
    return Found(to, tuple(files), products, goals, unproven)


def _verified(file: Path, name: str, called: str, recorded: dict[str, str]) -> tuple[int, str]:
    """Size and hash of a file, once both are verified."""
    size, digest = file.stat().st_size, _digest(file)
    known = _KNOWN.get(name, {})
    if (expected := recorded.get(name)) is not None and digest != expected:
        raise UsageError(
            f"{called} is damaged: its SHA-256 is {digest[:16]}..., not {expected[:16]}... as {_SUMS} says; get it again"
        )
    if known and size not in known:
        sizes = " or ".join(f"{bytes_:,}" for bytes_ in known)
        raise UsageError(f"{called} has {size:,} bytes, not {sizes}: it is incomplete or another file; get it again")
    if known and known[size] and digest != known[size]:
        raise UsageError(f"{called} is damaged: its SHA-256 is {digest[:16]}..., not {known[size][:16]}...; get it again")
    return size, digest


def _recorded(folder: Path) -> dict[str, str]:
    """The recorded hashes of a folder, by file name."""
    try:
        lines = (folder / _SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {words[1].lstrip("*"): words[0] for line in lines if len(words := line.split()) == 2}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _arriving(place: Path) -> Generator[Path]:
    """A hidden file to write, which becomes `place` when the block ends without an error."""
    work = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield work
            work.replace(place)
        finally:
            work.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{place} could not be written ({error.strerror or error}); free some space or choose another --to"
        ) from error


def _copy(source: Path, work: Path, *, link: bool, tell: Watcher) -> None:
    tell.phase(f"{'link' if link else 'copy'} {source.name}")
    if link:
        work.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, work)


def _download(address: str, name: str, work: Path, tell: Watcher) -> None:
    tell.phase(f"download {name} (MB)")
    help_ = f"get it by hand ({address}) and give its folder by --from"
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "spark-rl"})
        with urllib.request.urlopen(request, timeout=60) as answer, work.open("xb") as file:
            if "text/html" in answer.headers.get("Content-Type", ""):
                raise EnvironmentFailure(f"the download of {name} was answered by a web page, not by the file; {help_}")
            done = 0
            while chunk := answer.read(_CHUNK):
                done += file.write(chunk)
                tell.advance(done // 1_000_000)
            file.flush()
            os.fsync(file.fileno())
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = " ".join(str(error).split())
        raise EnvironmentFailure(f"{name} could not be downloaded ({reason}); {help_}") from error
