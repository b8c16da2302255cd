"""Names of version 0.1.0: the one table for reading its files and for keeping digests unchanged.

Invariants
----------
* Version 0.1.0 named a class by the place of its code. Each of these strings stands here once, beside today's name. No later
  version writes such strings, so the table grows only when a registered name is dropped.
* A setting that has moved to another class since is moved when an old file is read (`upgraded`).
* Digests never change. They name cells and prompts in files of all versions, so they are computed from the names of version
  0.1.0 (`hashed_name`), wherever the code lies today. A class that is newer is hashed by its registered name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from spark_rl.common.jsons import JsonObject
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


def upgraded(name: str, settings: JsonObject) -> tuple[str, JsonObject]:
    """The name and the settings of a saved class, with today's names; dataclasses inside the settings stay as they are.

    Args:
        name: `type` in the file.
        settings: the other entries.
    """
    result = dict(settings)
    if name == "spark_rl.recipe:Recipe" and "cache_gb" in result:  # version 0.1.0 had the local engine only
        result["engine"] = {"type": "local", "cache_gb": result.pop("cache_gb")}
    return OLD_NAMES.get(name, name), result


def hashed_name(kind: type) -> str:
    """The name of a class in digests: that of version 0.1.0, or the registered name of a newer class."""
    name = saved_name(kind)
    return _IDENTIFIERS.get(name, name)


def hashed_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings of a recipe for a digest: the cache of the local engine is a setting of the recipe, as in version 0.1.0.

    Args:
        settings: the recipe's fields that are not at their defaults.
    """
    result = dict(settings)
    engine = result.get("engine")
    if isinstance(engine, Local):
        del result["engine"]
        if engine.cache_gb != Local.cache_gb:
            result["cache_gb"] = engine.cache_gb
        if (rest := replace(engine, cache_gb=Local.cache_gb)) != Local():
            result["engine"] = rest
    return result
