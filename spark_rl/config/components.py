"""The registry: the permanent name of every class that a recipe or another saved file can hold.

Invariants
----------
* Each class has exactly one name in saved files (`explore_tag`), and no other class has this name. A class in several slots
  has the same name in all of them. Code may move, but a name that was once written stays. (The old names of a class that
  was renamed or dropped are in `old_names`.)
* The name of a component in saved files is its name on the command line, with underscores.
* A class from outside this package needs no name: it is `package.module:Class` on the command line and in saved files.
* This module imports no component. A class is imported when it is needed.
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
"""Field of the recipe -> name on the command line -> `module:Class`. An option also takes any `package.module:Class`."""

PARTS: dict[str, str] = {
    "cold_start": "spark_rl.config.recipe:ColdStart",
    "evaluation": "spark_rl.config.recipe:Evaluation",
    "keep": "spark_rl.config.recipe:Keep",
    "log": "spark_rl.config.recipe:Log",
    "scale": "spark_rl.config.recipe:Scale",
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
"""The other dataclasses in saved files, which no option chooses: name in the file -> `module:Class`."""


def saved_names() -> dict[str, str]:
    """Every name in saved files -> `module:Class`."""
    slots = {name.replace("-", "_"): place for names in COMPONENTS.values() for name, place in names.items()}
    return PARTS | slots


def saved_name(kind: type) -> str:
    """The name of a class in saved files: its registered name, or `package.module:Class` for a class from outside.

    Raises:
        TypeError: the class is one of this package and has no registered name.
    """
    place = place_of(kind)
    for name, registered in saved_names().items():
        if registered == place:
            return name
    if place.startswith("spark_rl."):
        raise TypeError(f"{place} has no name in saved files: give it one in COMPONENTS or PARTS of config/components.py")
    return place


def component(slot: str, name: str) -> Any:
    """The component `name` for a slot of `COMPONENTS`, with its default settings.

    Raises:
        UsageError: the name, module or class does not exist.
    """
    names = COMPONENTS[slot]
    lowered = {key.replace("-", ""): path for key, path in names.items()}
    path = name if ":" in name else lowered.get(name.lower().replace("-", "").replace("_", ""))
    if path is None:
        raise unknown_name(slot, name, names)
    return load_object(path, slot)()
