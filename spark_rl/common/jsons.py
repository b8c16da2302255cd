"""The type of what a JSON file holds.

Invariant: a value of type `Json` can be written by `json.dumps`, and reading it back gives an equal value.
"""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["Json", "JsonObject"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A JSON value."""
JsonObject: TypeAlias = dict[str, Json]
"""A JSON object: values by name."""
