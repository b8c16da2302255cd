"""Objects by the place where they are defined."""

from __future__ import annotations

import importlib
from typing import Any

from spark_rl.errors import UsageError

__all__ = ["load_object"]


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
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise UsageError(f'{what} "{place}" cannot be imported ({error}); give package.module:{kind}') from error
