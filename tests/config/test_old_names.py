"""What version 0.1.0 called things, and the digests that must not notice that it is called otherwise now."""

from __future__ import annotations

from dataclasses import MISSING, fields

import pytest

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.common.loading import load_object
from spark_rl.config.codec import decode, encode
from spark_rl.config.components import saved_names
from spark_rl.config.old_names import OLD_NAMES, hashed_name, hashed_settings, upgraded
from spark_rl.config.recipe import Recipe
from spark_rl.engines.local.settings import Local
from spark_rl.environments.household import Household
from spark_rl.prompting.prompt import Prompt


@pytest.mark.parametrize("old", OLD_NAMES)
def test_each_old_name_stands_for_a_class_of_today_and_is_its_identifier_in_digests(old):
    kind = load_object(saved_names()[OLD_NAMES[old]], "class")
    assert hashed_name(kind) == old
    if all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(kind) if f.init):
        assert decode({"type": old}) == kind()


def test_what_came_later_is_hashed_by_its_name_and_what_is_foreign_by_its_place():
    assert hashed_name(Local) == "local"
    assert hashed_name(type("Own", (), {"__module__": "own.rules"})) == "own.rules:Own"


def test_where_code_lies_is_no_part_of_an_identifier(monkeypatch):
    monkeypatch.setattr(ExploreTag, "__module__", "spark_rl.somewhere.new")
    monkeypatch.setattr(
        "spark_rl.config.components.COMPONENTS",
        {"branching": {"explore-tag": "spark_rl.somewhere.new:ExploreTag"}},
    )
    assert hashed_name(ExploreTag) == "spark_rl.branching.explore_tag:ExploreTag"
    assert encode(ExploreTag())["type"] == "explore_tag"


def test_an_old_recipes_cache_is_its_engines():
    old = {"type": "spark_rl.recipe:Recipe", "name": "old", "env": {"type": "household"}, "cache_gb": 0.5}
    assert decode(old) == Recipe("old", Household(), engine=Local(cache_gb=0.5))
    assert upgraded("spark_rl.recipe:Recipe", {"name": "old"}) == ("recipe", {"name": "old"})
    assert upgraded("recipe", {"cache_gb": 1.0}) == ("recipe", {"cache_gb": 1.0}), "a new recipe has no such setting"


def test_digests_take_the_local_engines_cache_as_the_recipes():
    assert hashed_settings({"name": "one", "engine": Local(cache_gb=0.5)}) == {"name": "one", "cache_gb": 0.5}
    assert hashed_settings({"engine": Local()}) == {}
    other = Prompt()  # stands for another engine
    assert hashed_settings({"engine": other}) == {"engine": other}
    assert hashed_settings({"seed": 1}) == {"seed": 1}
