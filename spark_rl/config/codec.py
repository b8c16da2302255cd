"""Recipes and their parts as JSON values, and back.

Invariants
----------
* Every saved dataclass has a `type`: the permanent name of its class (`components.saved_name`), not the place of its code.
* Files of version 0.1.0 can be read (`old_names`). A setting that is missing in an older file has its default.
* `current` rewrites saved settings as `encode` writes them today, so that settings of different versions can be compared as
  values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast, overload

from spark_rl.common.jsons import Json, JsonObject
from spark_rl.common.loading import load_object
from spark_rl.config.components import saved_name, saved_names
from spark_rl.config.old_names import upgraded
from spark_rl.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["by_option", "current", "decode", "default_of", "encode"]


@overload
def encode(value: DataclassInstance, named: Callable[[type], str] = saved_name) -> JsonObject: ...
@overload
def encode(value: object, named: Callable[[type], str] = saved_name) -> Json: ...
def encode(value: object, named: Callable[[type], str] = saved_name) -> Json:
    """A recipe, or any nest of dataclasses, as JSON values; each dataclass has its `type`.

    Args:
        value: a dataclass, a list, a tuple, a mapping or a JSON value.
        named: gives the `type` of a class; digests use other names than saved files.
    """
    if is_dataclass(value) and not isinstance(value, type):
        settings = {f.name: encode(getattr(value, f.name), named) for f in fields(value) if f.init}
        return {"type": named(type(value)), **settings}
    if isinstance(value, list | tuple):
        return [encode(item, named) for item in cast("Sequence[object]", value)]
    if isinstance(value, Mapping):
        return {key: encode(item, named) for key, item in cast("Mapping[str, object]", value).items()}
    return cast(Json, value)


def by_option(encoded: JsonObject, prefix: str = "") -> Iterator[tuple[str, Json]]:
    """The settings of an encoded recipe by their names on the command line; a component's own name gives its class."""
    for name, inner in encoded.items():
        if name == "type":
            if prefix:
                yield prefix, inner
        elif isinstance(inner, dict):
            yield from by_option(inner, f"{prefix}.{name}".strip("."))
        elif isinstance(inner, list) and any(isinstance(part, dict) for part in inner):
            for number, part in enumerate(inner):
                yield from by_option(cast(JsonObject, part), f"{prefix}.{name}.{number}".strip("."))
        else:
            yield f"{prefix}.{name}".strip("."), inner


def decode(data: object, *, foreign: Callable[[str], bool] = lambda _: False) -> Any:
    """The inverse of `encode`; JSON values of version 0.1.0 are read as well.

    Args:
        data: JSON values.
        foreign: called with the name of a class from outside this package before its import; False refuses the class.

    Raises:
        UsageError: a class is refused, unknown, or does not take these settings.
    """
    if isinstance(data, list):
        return tuple(decode(item, foreign=foreign) for item in cast("list[object]", data))
    if not isinstance(data, dict):
        return data
    entries = cast(JsonObject, data)
    if "type" not in entries:
        return {key: decode(item, foreign=foreign) for key, item in entries.items()}
    name, saved = _opened(entries)
    kind = _class(name, foreign)
    names = {f.name for f in fields(kind) if f.init}
    if unknown := [setting for setting in saved if setting not in names]:
        raise UsageError(
            f'the saved {name} has the setting "{unknown[0]}", which this version does not know; another version wrote it'
        )
    settings = {key: decode(item, foreign=foreign) for key, item in saved.items()}
    try:
        return kind(**settings)
    except TypeError as error:
        raise UsageError(f"the saved {name} refuses its settings ({error}): it comes from another version") from error


def current(data: object) -> Json:
    """Saved JSON values as `encode` writes them today: with today's names, and with the settings that are new since.

    Classes from outside this package are left as they are. No object is built: no world is opened, and no combination of
    settings is refused.

    Args:
        data: JSON values.
    """
    if isinstance(data, list):
        return [current(item) for item in cast("list[object]", data)]
    if not isinstance(data, dict):
        return cast(Json, data)
    entries = cast(JsonObject, data)
    if "type" not in entries:
        return {key: current(item) for key, item in entries.items()}
    name, saved = _opened(entries)
    settings = {key: current(item) for key, item in saved.items()}
    if place := saved_names().get(name):
        parts = [f for f in fields(load_object(place, "type")) if f.init]
        full = {f.name: settings.get(f.name, encode(default_of(f))) for f in parts if f.name in settings or _has_default(f)}
        settings = full | settings
    return {"type": name, **settings}


def _opened(entries: JsonObject) -> tuple[str, JsonObject]:
    """The class name and the settings of an encoded dataclass, with today's names."""
    return upgraded(str(entries["type"]), {key: item for key, item in entries.items() if key != "type"})


def _class(name: str, foreign: Callable[[str], bool]) -> type[DataclassInstance]:
    """The dataclass of a name in saved files."""
    places = saved_names()
    if name not in places:
        if ":" not in name or name.startswith("spark_rl."):
            near = get_close_matches(name, places, n=1)
            hint = f' (the nearest name it knows is "{near[0]}")' if near else ""
            raise UsageError(f'the saved settings name "{name}", which this version does not know{hint}')
        if not foreign(name):
            raise UsageError(
                f"the saved recipe uses {name}, which is not part of spark-rl: allow its import or edit the recipe"
            )
    kind: object = load_object(places.get(name, name), "type")
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise UsageError(f"the saved recipe's type {name} is no dataclass; it may come from another version")
    return kind


def _has_default(setting: Field[object]) -> bool:
    return setting.default is not MISSING or setting.default_factory is not MISSING


def default_of(setting: Field[object]) -> object:
    """The default of a field; `MISSING` where the field has none."""
    return setting.default if setting.default_factory is MISSING else setting.default_factory()
