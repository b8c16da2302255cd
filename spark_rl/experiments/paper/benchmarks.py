"""The worlds that the paper's tables are about, and how large they are.

Invariant: sizes of splits are facts about the data, written down here so that a grid can be planned where the data are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from spark_rl.config.recipe import Recipe
from spark_rl.errors import unknown_name
from spark_rl.recipes import load_recipe

__all__ = ["BENCHMARKS", "TOKENS", "Benchmark", "Scale", "Size", "base_recipe"]

Scale = Literal["paper", "tiny"]
"""`paper`: Qwen2.5-Instruct on GPUs. `tiny`: the same experiment with a model from nothing on a CPU."""
Size = Literal["1.5B", "7B"]

_FILES: dict[Size, str] = {"1.5B": "1-5b", "7B": "7b"}

TOKENS: dict[Scale, float] = {"paper": 60.0, "tiny": 13.0}
"""Tokens of a completion to expect: a sentence and an action in Qwen2.5's tokens; in a vocabulary learnt from the world."""


@dataclass(frozen=True)
class Benchmark:
    """A world as the tables see it."""

    title: str
    tasks: int
    """Training tasks of L0, the development slice taken out."""
    tests: Mapping[str, int]
    """Test tasks by level."""
    steps: float
    """Steps of a trajectory to expect, failures among them."""
    kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    """Task types under the names that the tables use."""
    stands_for: str = ""
    """The benchmark whose columns it fills where the paper has none of its own."""


BENCHMARKS: dict[str, Benchmark] = {
    "alfworld": Benchmark(
        "ALFWorld",
        3503,
        {"L0": 140, "L1": 134, "L2": 38},
        17,
        {
            "look": "look_at_obj_in_light",
            "clean": "pick_clean_then_place_in_recep",
            "two": "pick_two_obj_and_place",
        },
    ),
    "scienceworld": Benchmark("ScienceWorld", 3272, {"L0": 1661, "L1": 1684, "L2": 549}, 23),
    "webshop": Benchmark("WebShop", 6410, {"L0": 500}, 7.5),
    "household": Benchmark(
        "household",
        5000,
        {"L0": 120, "L1": 120, "L2": 120},
        13,
        {"look": "light", "clean": "clean"},
        stands_for="alfworld",
    ),
}
"""By the world's name. Steps are rows of an iteration over its leaves: simulated for the paper's, measured for ours."""


def base_recipe(world: str, size: Size, scale: Scale) -> Recipe:
    """The recipe that the cells of a world and size change.

    Raises:
        UsageError: there is no such benchmark at this scale.
    """
    known = [name for name, benchmark in BENCHMARKS.items() if scale == "tiny" or not benchmark.stands_for]
    if world not in known:
        raise unknown_name(f"benchmark at the {scale} scale", world, known)
    return load_recipe(f"{world}-qwen-{_FILES[size]}" if scale == "paper" else f"{world}-tiny")
