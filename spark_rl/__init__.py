"""spark-rl: train language-model agents with rollouts that grow into trees (SPARK, arXiv 2601.20209).

The data types are imported here. The functions that grow trees and load forests are imported at first use, so that
`import spark_rl` is instant and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from spark_rl.types import Completion, Credit, Forest, Fork, Node, Observation, Request, Task, Tree

if TYPE_CHECKING:
    from spark_rl.environments.registry import load_world
    from spark_rl.rollout.grow import grow_forest, grow_tree
    from spark_rl.runs.forests import load_forest

__version__ = "0.1.0"

__all__ = [
    "Completion",
    "Credit",
    "Forest",
    "Fork",
    "Node",
    "Observation",
    "Request",
    "Task",
    "Tree",
    "__version__",
    "grow_forest",
    "grow_tree",
    "load_forest",
    "load_world",
]

_AT_FIRST_USE = {
    "grow_forest": "spark_rl.rollout.grow",
    "grow_tree": "spark_rl.rollout.grow",
    "load_forest": "spark_rl.runs.forests",
    "load_world": "spark_rl.environments.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_AT_FIRST_USE[name]), name)
