"""What version 0.1.0 called things: the one table by which its files are read, and by which digests stay what they were.

Invariants
----------
* Version 0.1.0 named a class by the place of its code. Each such string stands here once, beside today's name; no later
  version writes such strings, so the table only grows where a registered name is given up.
* A setting that has moved since is moved when an old file is read (`upgraded`).
* Digests outlive both. They name cells and prompts in files of every age, so they are made of the identifiers of version
  0.1.0 (`hashed_name`), which are constants now, wherever the code lies. A class that came later is hashed by its
  registered name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spark_rl.config.components import saved_name
from spark_rl.engines.local.settings import Local

__all__ = ["OLD_NAMES", "hashed_name", "hashed_settings", "upgraded"]

OLD_NAMES: dict[str, str] = {
    "spark_rl.advantage.anchors:Anchors": "anchors",
    "spark_rl.advantage.base:Rewards": "rewards",
    "spark_rl.advantage.discounted:Discounted": "discounted",
    "spark_rl.advantage.group:GroupMean": "group_mean",
    "spark_rl.advantage.leave_one_out:LeaveOneOut": "leave_one_out",
    "spark_rl.advantage.node_value:NodeValue": "node_value",
    "spark_rl.advantage.rows:Rows": "rows",
    "spark_rl.advantage.siblings:Siblings": "siblings",
    "spark_rl.advantage.sum:Sum": "sum",
    "spark_rl.advantage.tags:Tags": "tags",
    "spark_rl.branching.chains:Chains": "chains",
    "spark_rl.branching.entropy:Entropy": "entropy",
    "spark_rl.branching.every_step:EveryStep": "every_step",
    "spark_rl.branching.explore_tag:ExploreTag": "explore_tag",
    "spark_rl.branching.hybrid:Hybrid": "hybrid",
    "spark_rl.branching.new_roots:NewRoots": "new_roots",
    "spark_rl.branching.paced:Paced": "paced",
    "spark_rl.branching.probability:Probability": "probability",
    "spark_rl.branching.revisits:Revisits": "revisits",
    "spark_rl.environments.alfworld.world:Alfworld": "alfworld",
    "spark_rl.environments.cards.blackjack:Blackjack": "blackjack",
    "spark_rl.environments.cards.ezpoints:EZPoints": "ezpoints",
    "spark_rl.environments.cards.numberline:NumberLine": "numberline",
    "spark_rl.environments.household.world:Household": "household",
    "spark_rl.environments.scienceworld.world:ScienceWorld": "scienceworld",
    "spark_rl.environments.sokoban.world:Sokoban": "sokoban",
    "spark_rl.environments.webshop.world:Webshop": "webshop",
    "spark_rl.fresh:FreshModel": "scratch_model",
    "spark_rl.growth:Sampling": "sampling",
    "spark_rl.growth:TreeShape": "tree_shape",
    "spark_rl.loss:Loss": "loss",
    "spark_rl.preferences:Preferences": "preferences",
    "spark_rl.prompting:Prompt": "prompt",
    "spark_rl.prompting:Transcript": "transcript",
    "spark_rl.prompting:Window": "window",
    "spark_rl.recipe:ColdStart": "cold_start",
    "spark_rl.recipe:Evaluation": "evaluation",
    "spark_rl.recipe:Keep": "keep",
    "spark_rl.recipe:Log": "log",
    "spark_rl.recipe:Optimizer": "optimizer",
    "spark_rl.recipe:Recipe": "recipe",
    "spark_rl.weights:Weights": "weights",
}
"""Name in files of version 0.1.0 -> today's name."""

_IDENTIFIERS = {new: old for old, new in OLD_NAMES.items()}


def upgraded(name: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A class's name and settings in a saved file, under today's names; those inside its settings stay as they are.

    Args:
        name: `type` in the file.
        settings: the other entries, JSON values.
    """
    found = dict(settings)
    if name == "spark_rl.recipe:Recipe" and "cache_gb" in found:  # a setting of the local engine, the only one there was
        found["engine"] = {"type": "local", "cache_gb": found.pop("cache_gb")}
    return OLD_NAMES.get(name, name), found


def hashed_name(kind: type) -> str:
    """What digests call a class: as version 0.1.0 did, where that had it."""
    name = saved_name(kind)
    return _IDENTIFIERS.get(name, name)


def hashed_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's settings as digests take them: the local engine's cache is the recipe's own, as in version 0.1.0.

    Args:
        settings: the recipe's fields that are not at their defaults.
    """
    found = dict(settings)
    engine = found.get("engine")
    if isinstance(engine, Local):
        del found["engine"]
        if engine.cache_gb != Local.cache_gb:
            found["cache_gb"] = engine.cache_gb
        if (rest := replace(engine, cache_gb=Local.cache_gb)) != Local():
            found["engine"] = rest
    return found
