"""Seeds derived from names: the same parts give the same seed on every machine, and other parts give another seed."""

from __future__ import annotations

import hashlib
import json

__all__ = ["derive"]


def derive(*parts: int | str | tuple[int, ...]) -> int:
    """A 63-bit seed from integers, strings and tuples of integers."""
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
