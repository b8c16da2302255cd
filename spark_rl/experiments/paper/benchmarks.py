"""The worlds of the paper's tables, and their sizes.

Invariant: sizes of splits are facts about the data, written down here so that a grid can be planned without the data.
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
"""`paper`: Qwen2.5-Instruct on GPUs. `tiny`: the same experiment with a model from scratch on a CPU."""
Size = Literal["1.5B", "7B"]

_FILES: dict[Size, str] = {"1.5B": "1-5b", "7B": "7b"}

TOKENS: dict[Scale, float] = {"paper": 60.0, "tiny": 13.0}
"""Expected tokens of a completion (a sentence and an action): with Qwen2.5's tokenizer; with one learnt from the world."""


@dataclass(frozen=True)
class Benchmark:
    """A world of the tables, with its sizes."""

    title: str
    tasks: int
    """Training tasks of L0, without the development split."""
    tests: Mapping[str, int]
    """Test tasks by level."""
    steps: float
    """Expected steps of a trajectory, failures included."""
    kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    """Task types under the names that the tables use."""
    stands_for: str = ""
    """The benchmark whose columns this world fills, for a world without columns in the paper."""


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
"""Benchmarks by name of the world.

`steps` is the number of rows of an iteration divided by its leaves, simulated for the paper's worlds and measured for ours.
"""


def base_recipe(world: str, size: Size, scale: Scale) -> Recipe:
    """The base recipe for the cells of a world and size.

    Raises:
        UsageError: there is no such benchmark at this scale.
    """
    known = [name for name, benchmark in BENCHMARKS.items() if scale == "tiny" or not benchmark.stands_for]
    if world not in known:
        raise unknown_name(f"benchmark at the {scale} scale", world, known)
    return load_recipe(f"{world}-qwen-{_FILES[size]}" if scale == "paper" else f"{world}-tiny")
