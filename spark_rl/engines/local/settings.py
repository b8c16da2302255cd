"""The local engine as a component of a recipe: plain settings, so that recipes need no torch to hold one."""

from __future__ import annotations

from dataclasses import dataclass

from spark_rl.errors import at_least

__all__ = ["Local"]


@dataclass(frozen=True)
class Local:
    """A `transformers` model in this process, with keys and values kept along the trees."""

    cache_gb: float = 2.0
    """Most memory of the keys and values that are kept between steps; 0 keeps nothing."""

    def __post_init__(self) -> None:
        at_least("engine", self, cache_gb=0)
