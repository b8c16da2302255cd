"""The registry: every class that a recipe or another saved file can hold, by the name that lasts.

Invariants
----------
* Each class has exactly one name in saved files, its own alone, however many slots take it: `explore_tag`. Code may move;
  a name that was once written stays. (A class that was renamed or dropped keeps its old names in `old_names`.)
* A component's name in saved files is its name on the command line with underscores.
* A class of somebody else's needs no name: it goes by `package.module:Class`, on the command line and in saved files.
* Nothing is imported here; a class is loaded when it is asked for.
"""

from __future__ import annotations

from typing import Any

from spark_rl.common.loading import load_object, place_of
from spark_rl.engines.registry import ENGINES
from spark_rl.environments.registry import WORLDS
from spark_rl.errors import unknown_name

__all__ = ["COMPONENTS", "PARTS", "component", "saved_name", "saved_names"]

COMPONENTS: dict[str, dict[str, str]] = {
    "env": WORLDS,
    "engine": ENGINES,
    "branching": {
        "explore-tag": "spark_rl.branching.explore_tag:ExploreTag",
        "probability": "spark_rl.branching.probability:Probability",
        "chains": "spark_rl.branching.chains:Chains",
        "entropy": "spark_rl.branching.entropy:Entropy",
        "every-step": "spark_rl.branching.every_step:EveryStep",
        "paced": "spark_rl.branching.paced:Paced",
        "revisits": "spark_rl.branching.revisits:Revisits",
        "new-roots": "spark_rl.branching.new_roots:NewRoots",
        "hybrid": "spark_rl.branching.hybrid:Hybrid",
    },
    "branching.rule": {
        "explore-tag": "spark_rl.branching.explore_tag:ExploreTag",
        "probability": "spark_rl.branching.probability:Probability",
        "entropy": "spark_rl.branching.entropy:Entropy",
        "every-step": "spark_rl.branching.every_step:EveryStep",
    },
    "advantage": {
        "group-mean": "spark_rl.advantage.group:GroupMean",
        "rows": "spark_rl.advantage.rows:Rows",
        "leave-one-out": "spark_rl.advantage.leave_one_out:LeaveOneOut",
        "discounted": "spark_rl.advantage.discounted:Discounted",
        "node-value": "spark_rl.advantage.node_value:NodeValue",
        "siblings": "spark_rl.advantage.siblings:Siblings",
        "anchors": "spark_rl.advantage.anchors:Anchors",
        "tags": "spark_rl.advantage.tags:Tags",
        "sum": "spark_rl.advantage.sum:Sum",
    },
    "prompt.context": {
        "window": "spark_rl.prompting.window:Window",
        "transcript": "spark_rl.prompting.transcript:Transcript",
    },
}
"""Fields that hold a component, and the names it goes by on the command line; `package.module:Class` is taken too."""

PARTS: dict[str, str] = {
    "cold_start": "spark_rl.config.recipe:ColdStart",
    "evaluation": "spark_rl.config.recipe:Evaluation",
    "keep": "spark_rl.config.recipe:Keep",
    "log": "spark_rl.config.recipe:Log",
    "loss": "spark_rl.objective.loss:Loss",
    "optimizer": "spark_rl.config.recipe:Optimizer",
    "preferences": "spark_rl.objective.preferences:Preferences",
    "prompt": "spark_rl.prompting.prompt:Prompt",
    "recipe": "spark_rl.config.recipe:Recipe",
    "rewards": "spark_rl.objective.rewards:Rewards",
    "sampling": "spark_rl.types:Sampling",
    "scratch_model": "spark_rl.models.scratch:ScratchModel",
    "tree_shape": "spark_rl.types:TreeShape",
    "weights": "spark_rl.models.weights:Weights",
}
"""The other dataclasses in saved files, which no option chooses: name there -> `module:Class`."""


def saved_names() -> dict[str, str]:
    """Every name that saved files use -> `module:Class`."""
    slots = {name.replace("-", "_"): place for known in COMPONENTS.values() for name, place in known.items()}
    return PARTS | slots


def saved_name(kind: type) -> str:
    """What saved files call a class: its registered name, or `package.module:Class` of a class of somebody else's.

    Raises:
        TypeError: the class is one of this package and has no name.
    """
    place = place_of(kind)
    for name, known in saved_names().items():
        if known == place:
            return name
    if place.startswith("spark_rl."):
        raise TypeError(f"{place} has no name in saved files: give it one in COMPONENTS or PARTS of config/components.py")
    return place


def component(slot: str, name: str) -> Any:
    """The component `name` of a slot of `COMPONENTS`, with its default settings.

    Raises:
        UsageError: no such name, module or class, or it cannot be made without arguments.
    """
    known = COMPONENTS[slot]
    lowered = {key.replace("-", ""): path for key, path in known.items()}
    path = name if ":" in name else lowered.get(name.lower().replace("-", "").replace("_", ""))
    if path is None:
        raise unknown_name(slot, name, known)
    return load_object(path, slot)()
