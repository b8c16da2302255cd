"""Recipes and their parts as JSON values, and back.

Invariants
----------
* Every dataclass carries its `type`, by the name that lasts (`components.saved_name`): where code lies is not written.
* What version 0.1.0 wrote is read (`old_names`), and so is what an earlier version left out: the setting has its default.
* `current` brings what was saved to the form in which `encode` writes it today, so that saved settings are compared as
  values, whichever version wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, cast

from spark_rl.common.loading import load_object
from spark_rl.config.components import saved_name, saved_names
from spark_rl.config.old_names import upgraded
from spark_rl.errors import UsageError

__all__ = ["by_option", "current", "decode", "encode"]


def encode(value: Any, named: Callable[[type], str] = saved_name) -> Any:
    """A recipe (or any nest of dataclasses) as JSON values; each dataclass carries its `type`.

    Args:
        value: what is encoded.
        named: gives the `type` of a class; digests have names of their own.
    """
    if is_dataclass(value) and not isinstance(value, type):
        settings = {f.name: encode(getattr(value, f.name), named) for f in fields(value) if f.init}
        return {"type": named(type(value)), **settings}
    if isinstance(value, list | tuple):
        return [encode(item, named) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {key: encode(item, named) for key, item in cast("Mapping[str, Any]", value).items()}
    return value


def by_option(encoded: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of an encoded recipe by their names on the command line; of a component its class as well."""
    for name, inner in encoded.items():
        if name == "type":
            if prefix:
                yield prefix, inner
        elif isinstance(inner, dict):
            yield from by_option(cast("dict[str, Any]", inner), f"{prefix}.{name}".strip("."))
        elif isinstance(inner, list) and any(isinstance(part, dict) for part in cast("list[Any]", inner)):
            for number, part in enumerate(cast("list[Any]", inner)):
                yield from by_option(part, f"{prefix}.{name}.{number}".strip("."))
        else:
            yield f"{prefix}.{name}".strip("."), inner


def decode(data: Any, *, foreign: Callable[[str], bool] = lambda _: False) -> Any:
    """The inverse of `encode`; what version 0.1.0 encoded is read as well.

    Args:
        data: JSON values.
        foreign: asked before a class from outside this package is imported; False refuses.

    Raises:
        UsageError: a class is refused, unknown, or does not take these settings.
    """
    if isinstance(data, list):
        return tuple(decode(item, foreign=foreign) for item in cast("list[Any]", data))
    if not isinstance(data, dict):
        return data
    entries = cast("dict[str, Any]", data)
    if "type" not in entries:
        return {key: decode(item, foreign=foreign) for key, item in entries.items()}
    name, saved = _opened(entries)
    kind = _class(name, foreign)
    taken = {f.name for f in fields(kind) if f.init}
    if unknown := [setting for setting in saved if setting not in taken]:
        raise UsageError(
            f'the saved {name} has the setting "{unknown[0]}", which this version does not know; another version wrote it'
        )
    settings = {key: decode(item, foreign=foreign) for key, item in saved.items()}
    try:
        return kind(**settings)
    except TypeError as error:
        raise UsageError(f"the saved {name} refuses its settings ({error}): it comes from another version") from error


def current(data: Any) -> Any:
    """What was saved, as `encode` writes the same today: under today's names, and with the settings that came since.

    Classes from outside this package are left as they are, and nothing is made of the settings: no world is built, no
    combination refused.

    Args:
        data: JSON values.
    """
    if isinstance(data, list):
        return [current(item) for item in cast("list[Any]", data)]
    if not isinstance(data, dict):
        return data
    entries = cast("dict[str, Any]", data)
    if "type" not in entries:
        return {key: current(item) for key, item in entries.items()}
    name, saved = _opened(entries)
    settings = {key: current(item) for key, item in saved.items()}
    if place := saved_names().get(name):
        known = [f for f in fields(load_object(place, "type")) if f.init]
        full = {f.name: settings.get(f.name, encode(_default(f))) for f in known if f.name in settings or _has_default(f)}
        settings = full | settings
    return {"type": name, **settings}


def _opened(entries: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and settings of an encoded dataclass, under today's names."""
    return upgraded(str(entries["type"]), {key: item for key, item in entries.items() if key != "type"})


def _class(name: str, foreign: Callable[[str], bool]) -> type[Any]:
    """The class that saved files call so."""
    known = saved_names()
    if name not in known:
        if ":" not in name or name.startswith("spark_rl."):
            near = get_close_matches(name, known, n=1)
            hint = f' (the nearest name it knows is "{near[0]}")' if near else ""
            raise UsageError(f'the saved settings name "{name}", which this version does not know{hint}')
        if not foreign(name):
            raise UsageError(
                f"the saved recipe uses {name}, which is not part of spark-rl: allow its import or edit the recipe"
            )
    kind: Any = load_object(known.get(name, name), "type")
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise UsageError(f"the saved recipe's type {name} is no dataclass; it may come from another version")
    return kind


def _has_default(setting: Field[Any]) -> bool:
    return setting.default is not MISSING or setting.default_factory is not MISSING


def _default(setting: Field[Any]) -> Any:
    return setting.default if setting.default_factory is MISSING else setting.default_factory()
