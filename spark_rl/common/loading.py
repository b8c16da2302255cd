"""Objects by the place where they are defined: the one loader of `package.module:Name`."""

from __future__ import annotations

import importlib
from operator import attrgetter
from typing import Any

from spark_rl.errors import UsageError

__all__ = ["load_object", "place_of"]


def load_object(place: str, what: str, *, kind: str = "Class") -> Any:
    """What `package.module:Name` names.

    Args:
        place: the module, a colon, and a name in it.
        what: what it is meant to be, for the message ("environment", "recipe").
        kind: kind of the name, for the message ("Class", "function").

    Raises:
        UsageError: there is no such module, or no such name in it.
    """
    module, _, name = place.partition(":")
    try:
        return attrgetter(name)(importlib.import_module(module))
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise UsageError(f'{what} "{place}" cannot be imported ({error}); give package.module:{kind}') from error


def place_of(kind: type) -> str:
    """The place of a class, as `load_object` takes it."""
    return f"{kind.__module__}:{kind.__qualname__}"
