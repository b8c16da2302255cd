"""The shop: products, prices, goals and the search, built once and shared by all episodes of a process.

Invariants
----------
* A shop is named by a small value (`Official`, `Generated`), which is all that is pickled, and opened once a process.
* An official catalogue is built once into the user's cache folder (`$XDG_CACHE_HOME/spark-rl/webshop`). The folder's name
  is a hash of the names, sizes and modification times of the official files and of the format. The folder appears whole
  or not at all. Afterwards its files are mapped: they open at once, are read on demand, and are shared by processes.

A product of the large catalogue is a line of a file, found by its offset. Generated catalogues stay in memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from spark_rl.common.files import atomic_directory, cache_folder
from spark_rl.environments.webshop.catalogue import Product, named_files, official
from spark_rl.environments.webshop.generated import products as made_up
from spark_rl.environments.webshop.goals import Draws, Goals, Products
from spark_rl.environments.webshop.index import Index, IndexBuilder, Numbers
from spark_rl.errors import EnvironmentFailure, UsageError

__all__ = ["Catalogue", "Generated", "Official", "Shop", "StoredProducts", "assemble", "build", "open_folder", "open_shop"]

_FORMAT = 1
"""Version of the files in the cache; raised when the same official files are built differently."""
_QUERIES = 1 << 14
"""Most search results in memory, some 0.5 kB each."""
_PRODUCTS = 4096
"""Most products of a file in memory."""


class Catalogue(Protocol):
    """The name of a shop; a hashable value."""

    def open(self) -> Shop:
        """The shop itself."""
        ...


@dataclass(frozen=True)
class Generated:
    """A generated shop."""

    count: int
    """Number of products."""
    seed: int = 0

    def open(self) -> Shop:
        """The shop, generated in each process; it is the same in all."""
        return assemble(self, made_up(self.count, self.seed))


@dataclass(frozen=True)
class Official:
    """The shop of a folder of official files."""

    folder: str
    size: str
    """`small` or `full`."""

    def open(self) -> Shop:
        """The shop from the cache; the first call builds it there.

        Raises:
            UsageError: a file is missing.
            EnvironmentFailure: a file is damaged.
            StorageError: the cache folder cannot be written.
        """
        folder = self.cached()
        if not folder.is_dir():
            build(folder, official(Path(self.folder), self.size))
        return open_folder(self, folder)

    def cached(self) -> Path:
        """The shop's folder in the cache; another folder when an official file has changed."""
        files = [(file.name, file.stat()) for file in named_files(Path(self.folder), self.size)]
        seal = "\n".join(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in files)
        digest = hashlib.sha256(f"{_FORMAT} {self.folder}\n{seal}".encode()).hexdigest()[:16]
        return cache_folder() / "webshop" / digest


class Shop:
    """The part of a catalogue that all episodes share and none changes."""

    def __init__(self, catalogue: Catalogue, products: Products, arrays: dict[str, Numbers]) -> None:
        self.catalogue, self.products = catalogue, products
        self.prices: NDArray[np.float64] = arrays["prices"]
        """Price of each product; where it has two, a number drawn between them."""
        self.rank: NDArray[np.int32] = arrays["rank"]
        """Place of each product among the sorted asins."""
        self._goals = {sort: Goals.of(products, arrays, human=sort == "human") for sort in ("synthetic", "human")}
        self._index = Index.of(arrays)
        self.search = lru_cache(maxsize=_QUERIES)(self._search)
        """Numbers of at most 50 products, best first."""

    def goals(self, sort: str) -> Goals:
        """The goals of a sort, `synthetic` or `human`.

        Raises:
            UsageError: the catalogue has no goals of this sort.
        """
        goals = self._goals[sort]
        if not len(goals):
            raise UsageError(f"env.goals is {sort}, but this catalogue has no {sort} goals: take the other sort")
        return goals

    def _search(self, query: str) -> tuple[int, ...]:
        return tuple(self._index.search(query))

    def __reduce__(self) -> tuple[object, ...]:
        return open_shop, (self.catalogue,)


@functools.lru_cache(maxsize=4)
def open_shop(catalogue: Catalogue) -> Shop:
    """The shop of a catalogue, opened once a process."""
    return catalogue.open()


def assemble(catalogue: Catalogue, products: Iterable[Product]) -> Shop:
    """A shop in memory."""
    listed = tuple(products)
    draws, index = Draws(), IndexBuilder()
    for product in listed:
        draws.add(product)
        index.add(product.text)
    built = index.finish([product.asin for product in listed])
    return Shop(catalogue, listed, dict(_arrays(draws, built, listed)))


def _arrays(draws: Draws, index: Index, products: Products) -> Iterator[tuple[str, Numbers]]:
    yield "prices", np.array(draws.prices, dtype=np.float64)
    yield from index.arrays()
    for human in (False, True):
        yield from draws.goals(products, human=human).arrays()


# -- on disk --------------------------------------------------------------------------------------------------------


def build(folder: Path, products: Iterable[Product]) -> None:
    """Write a shop into a folder, in one pass over its products; the folder appears whole or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    draws, index, asins, offsets = Draws(), IndexBuilder(), list[bytes](), [0]
    with atomic_directory(folder) as work:
        with (work / "products.jsonl").open("wb") as file:
            for product in products:
                line = json.dumps(product.row(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
                offsets.append(offsets[-1] + file.write(line + b"\n"))
                draws.add(product)
                index.add(product.text)
                asins.append(product.asin.encode())
        np.save(work / "offsets.npy", np.array(offsets, dtype=np.int64))
        built = index.finish(np.array(asins, dtype=bytes) if asins else [])
        for name, array in _arrays(draws, built, _Lines(work)):
            np.save(work / f"{name}.npy", array)


def open_folder(catalogue: Catalogue, folder: Path) -> Shop:
    """A shop that `build` wrote.

    Raises:
        EnvironmentFailure: the folder is damaged; the user may delete it.
    """
    try:
        arrays = {file.stem: cast(Numbers, np.load(file, mmap_mode="r")) for file in folder.glob("*.npy")}
        return Shop(catalogue, StoredProducts(folder), arrays)
    except (OSError, ValueError, KeyError) as error:
        raise EnvironmentFailure(f"{folder} is damaged ({error}): delete it, and it will be built anew") from error


class StoredProducts:
    """Products that are lines of a file."""

    def __init__(self, folder: Path) -> None:
        self._lines = _Lines(folder)
        self._get = lru_cache(maxsize=_PRODUCTS)(self._lines.__getitem__)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> Product:
        return self._get(number)


class _Lines:
    def __init__(self, folder: Path) -> None:
        self._offsets = cast("NDArray[np.int64]", np.load(folder / "offsets.npy", mmap_mode="r"))
        with (folder / "products.jsonl").open("rb") as file:
            self._text: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if len(self) else b""

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, number: int) -> Product:
        line = self._text[int(self._offsets[number]) : int(self._offsets[number + 1])]
        return Product.of(json.loads(line.decode("utf-8", "surrogatepass")))
