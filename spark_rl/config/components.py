"""The components of a recipe by name."""

from __future__ import annotations

from typing import Any

from spark_rl.common.loading import load_object
from spark_rl.engines.registry import ENGINES
from spark_rl.environments.registry import WORLDS
from spark_rl.errors import unknown_name

__all__ = ["COMPONENTS", "component"]

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
