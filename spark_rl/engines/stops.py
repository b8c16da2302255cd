"""The token ids that end a turn."""

from __future__ import annotations

from typing import cast

__all__ = ["stop_ids"]


def stop_ids(generation: object, end: int) -> frozenset[int]:
    """The ids that end a turn.

    Args:
        generation: the model's settings of generation, which name one id, several or none.
        end: the tokenizer's end-of-sequence token.
    """
    ends = cast("int | list[int] | None", getattr(generation, "eos_token_id", None))
    several = ends if isinstance(ends, list) else [ends]
    return frozenset(stop for stop in (*several, end) if stop is not None)
