"""Recipes and their parts as JSON values, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from spark_rl.common.loading import load_object
from spark_rl.errors import UsageError

__all__ = ["by_option", "decode", "encode"]


def encode(value: Any) -> Any:
    """A recipe (or any nest of dataclasses) as JSON values; each dataclass carries its `type`."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        settings = {f.name: encode(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"type": f"{kind.__module__}:{kind.__qualname__}", **settings}
    if isinstance(value, list | tuple):
        return [encode(item) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in cast("Mapping[str, Any]", value).items()}
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
    """The inverse of `encode`.

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
    path = str(entries["type"])
    if not path.startswith("spark_rl.") and not foreign(path):
        raise UsageError(f"the saved recipe uses {path}, which is not part of spark-rl: allow its import or edit the recipe")
    settings = {key: decode(item, foreign=foreign) for key, item in entries.items() if key != "type"}
    kind: type[Any] = load_object(path, "type")
    if not is_dataclass(kind):
        raise UsageError(f"the saved recipe's type {path} is no dataclass; it may come from another version")
    try:
        return kind(**settings)
    except TypeError as error:
        raise UsageError(f"the saved recipe's {path} refuses its settings ({error}); is it from another version?") from error
