"""The one loader of `package.module:Name`."""

from __future__ import annotations

import importlib
from operator import attrgetter
from typing import Any

from spark_rl.errors import UsageError

__all__ = ["load_object", "place_of"]


def load_object(place: str, what: str, *, kind: str = "Class") -> Any:
    """The object that `package.module:Name` names.

    Args:
        place: the module, a colon, and a name in the module.
        what: the role of the object, for the message ("environment", "recipe").
        kind: the kind of the object, for the message ("Class", "function").

    Raises:
        UsageError: the module, or the name in the module, does not exist.
    """
    module, _, name = place.partition(":")
    try:
        return attrgetter(name)(importlib.import_module(module))
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise UsageError(f'{what} "{place}" cannot be imported ({error}); give package.module:{kind}') from error


def place_of(kind: type) -> str:
    """The place of a class, as `load_object` reads it."""
    return f"{kind.__module__}:{kind.__qualname__}"
