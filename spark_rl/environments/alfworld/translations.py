"""Games in the planner's language: each is translated once, then kept in memory and on disk.

Invariants
----------
* A translation depends on the texts of domain and problem and on the versions of textworld and of the planner alone. They
  are its key, so an edited game or another version is translated anew.
* A kept translation is data: packed JSON, of which nothing is evaluated. A damaged one is made again.

Mechanism
---------
The translation is most of the time that the first load of a game takes. The engine asks for it four times, and later reads
little of it. So a `Translation` holds the planner's text and the few names that the engine reads; packed, 10 to 65 kB. The
last `GAMES` stay in memory. On disk they stay in the user's cache folder (`common.kept`), for all runs and processes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import json
import zlib
from collections import OrderedDict
from dataclasses import astuple, dataclass
from typing import Any, cast

from spark_rl.common.kept import Kept

__all__ = ["GAMES", "Translation", "kept", "put_on_disk", "translation"]

GAMES = 256
"""Most translations in memory; the least recently used goes first."""
_FORMAT = 1
"""Changes whenever `Translation`, or the way it is made, does."""

_packed: OrderedDict[str, bytes] = OrderedDict()
"""Packed translations by key."""


@dataclass(frozen=True)
class Translation:
    """What the engine reads of a translated game. Names are as in the game's texts; lists stand for tuples."""

    sas: str
    """The planner's text."""
    actions: list[tuple[str, list[tuple[str, str]]]]
    """Name and parameters of each action; a parameter has a name (`?o`) and a type."""
    types: list[tuple[str, list[str]]]
    """Name and supertypes of each type."""
    objects: list[tuple[str, str]]
    """Name and type of each object."""
    facts: list[tuple[str, list[str]]]
    """Name and objects of each fact that the problem states, sorted."""


def translation(domain: str, problem: str, megabytes: int = 0) -> Translation:
    """The translation of a game.

    Args:
        domain: text of the domain.
        problem: text of the problem.
        megabytes: most megabytes of translations on disk; 0: the disk is not used.
    """
    key = _key(domain, problem)
    if key not in _packed:
        disk = kept(megabytes) if megabytes else None
        data = disk.read(key) if disk else None
        if data is None or _unpacked(data) is None:
            data = _pack(_translate(domain, problem))
            if disk:
                disk.write(key, data)
        _packed[key] = data
        if len(_packed) > GAMES:
            _packed.popitem(last=False)
    _packed.move_to_end(key)
    found = _unpacked(_packed[key])
    assert found is not None
    return found


def kept(megabytes: int) -> Kept:
    """The translations on disk, of at most so many megabytes."""
    return Kept("alfworld/translations", megabytes)


def put_on_disk(domain: str, problem: str, megabytes: int) -> None:
    """Put the translation of a game on disk, if it is not there."""
    disk, key = kept(megabytes), _key(domain, problem)
    if not disk.holds(key):
        disk.write(key, _pack(_translate(domain, problem)))


def _key(domain: str, problem: str) -> str:
    head = f"{_FORMAT} {_version('textworld')} {_version('fast_downward_textworld')} {len(domain)} "
    return hashlib.sha256((head + domain + problem).encode()).hexdigest()


@functools.cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _translate(domain: str, problem: str) -> Translation:
    """The translation, by the stock translator."""
    task, sas = importlib.import_module("fast_downward.interface").pddl2sas(domain, problem)
    return Translation(
        sas,
        [(action.name, [(each.name, each.type_name) for each in action.parameters]) for action in task.actions],
        [(kind.name, list(kind.supertype_names)) for kind in task.types],
        [(thing.name, thing.type_name) for thing in task.objects],
        sorted(fact for each in task.init if (fact := _fact(each)) is not None),
    )


def _fact(stated: Any) -> tuple[str, list[str]] | None:
    """Name and objects of a part of the problem's start; None where TextWorld drops it: equality, costs, distances."""
    if hasattr(stated, "predicate"):
        return None if stated.predicate == "=" else (stated.predicate, list(stated.args))
    name = str(stated.expression.value)
    return None if stated.fluent.symbol == "total-cost" or name.isdigit() else (name, list(stated.fluent.args))


def _pack(found: Translation) -> bytes:
    return zlib.compress(json.dumps(astuple(found)).encode())


@functools.lru_cache(maxsize=1)  # the engine asks twice while it loads a game
def _unpacked(data: bytes) -> Translation | None:
    """The translation; None where the data are damaged."""
    try:
        parts = cast("list[Any]", json.loads(zlib.decompress(data)))
        if [type(part) for part in parts] == [str, list, list, list, list]:
            return Translation(*parts)
    except (TypeError, ValueError, zlib.error):
        pass
    return None
