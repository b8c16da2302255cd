"""The registry: every class in saved files has one name of its own, and is found by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from typing import Any, get_args, get_type_hints

import pytest

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.common.loading import load_object, place_of
from spark_rl.config.codec import by_option, current, decode, encode
from spark_rl.config.components import COMPONENTS, PARTS, component, saved_name, saved_names
from spark_rl.engines.registry import ENGINES
from spark_rl.errors import UsageError
from spark_rl.objective.preferences import Preferences
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.recipes.algorithms import ALGORITHMS, with_algorithm
from spark_rl.types import Task, TreeShape

PLACES = {*PARTS.values(), *chain.from_iterable(known.values() for known in COMPONENTS.values())}


@dataclass(frozen=True)
class Telepathy:
    """An engine of somebody else's."""

    distance: float = 1.0
    inner: TreeShape = TreeShape()


def inside(value: Any) -> Iterator[type]:
    """The classes of all dataclass values in a value."""
    if is_dataclass(value):
        yield type(value)
        for field in fields(value):
            yield from inside(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from inside(item)


def hinted(hint: Any) -> Iterator[type]:
    """The dataclasses that an annotation names."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for part in get_args(hint):
        yield from hinted(part)


@pytest.mark.parametrize("place", sorted(PLACES))
def test_each_place_is_where_a_dataclass_is_defined(place):
    kind: Any = load_object(place, "class")
    assert isinstance(kind, type)
    assert is_dataclass(kind)
    assert place_of(kind) == place, "saved files find the name of a class by the module that defines it"
    assert saved_names()[saved_name(kind)] == place
    for field, hint in get_type_hints(kind).items():
        for inner in hinted(hint):
            assert saved_name(inner) in saved_names(), f"{place}.{field} can hold {inner}, which has no name"


def test_names_and_classes_belong_to_one_another():
    pairs = {(name, place) for name, place in PARTS.items()}
    pairs |= {(name.replace("-", "_"), place) for known in COMPONENTS.values() for name, place in known.items()}
    for side, what in ((0, "two classes have the name"), (1, "two names have the class")):
        twice = [each for each, count in Counter(pair[side] for pair in pairs).items() if count > 1]
        assert not twice, f"{what} {twice}"
    assert dict(pairs) == saved_names()
    for name in saved_names():
        assert name.isidentifier(), name
        assert name == name.lower(), name


@pytest.mark.parametrize("name", RECIPES)
def test_every_class_of_every_recipe_under_every_algorithm_has_a_name(name):
    recipe = load_recipe(name)
    for changed in (recipe, *(with_algorithm(recipe, algorithm) for algorithm in ALGORITHMS)):
        for kind in inside(changed):
            assert saved_name(kind) in saved_names()


def test_a_class_of_this_package_without_a_name_cannot_be_saved():
    with pytest.raises(TypeError, match=r"spark_rl.types:Task has no name in saved files: give it one"):
        encode(Task("household", "L0/train/1", "", ""))


def test_a_component_is_saved_by_its_name_in_every_slot():
    assert encode(component("branching", "explore-tag")) == encode(component("branching.rule", "explore-tag"))
    assert encode(ExploreTag())["type"] == "explore_tag"
    assert encode(Preferences())["type"] == "preferences"


def test_one_line_in_the_registry_gives_an_engine_its_name(monkeypatch):
    recipe = replace(load_recipe("quickstart"), engine=Telepathy(2.0))
    assert dict(by_option(encode(recipe)))["engine"] == f"{__name__}:Telepathy"
    with pytest.raises(UsageError, match="allow its import"):
        decode(encode(recipe))
    monkeypatch.setitem(ENGINES, "far-sight", f"{__name__}:Telepathy")
    assert dict(by_option(encode(recipe)))["engine"] == "far_sight"
    assert decode(encode(recipe)) == recipe


# -- as it is written today ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_written_today_is_current(name):
    assert current(encode(load_recipe(name))) == encode(load_recipe(name))


def test_settings_that_came_later_are_filled_in_and_unknown_ones_stay():
    full = encode(TreeShape(budget=6))
    today: Any = current({"type": "spark_rl.growth:TreeShape", "budget": 6, "roots": 4})
    assert today == full
    today = current({"type": "tree_shape", "horizon": 30, "budget": 6})
    assert list(today) == list(full), "in the order of the fields"
    today = current({"type": "tree_shape", "leaves": 3})
    assert today["leaves"] == 3
    today = current({"type": "recipe", "name": "half"})
    assert today["threads"] == 0
    assert "env" not in today, "a setting without a default is not invented"
    assert current([1, {"a": None}, "text"]) == [1, {"a": None}, "text"]


def test_what_is_foreign_is_brought_up_to_date_around_and_inside_and_imported_nowhere():
    saved = {"type": "nowhere.at_all:Rule", "gap": 1, "inner": {"type": "spark_rl.branching.chains:Chains"}}
    assert current(saved) == {"type": "nowhere.at_all:Rule", "gap": 1, "inner": {"type": "chains"}}
