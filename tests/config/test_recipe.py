"""Recipes: what is saved comes back equal, what is foreign or unknown is refused with a sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from spark_rl.branching.chains import Chains
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.branching.paced import Paced
from spark_rl.config.codec import decode, encode
from spark_rl.config.components import COMPONENTS, component
from spark_rl.config.recipe import ColdStart, Recipe
from spark_rl.contracts import Growth
from spark_rl.environments.household import Household
from spark_rl.environments.registry import WORLDS
from spark_rl.errors import UsageError
from spark_rl.models.scratch import ScratchModel
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.recipes import RECIPES, load_recipe


@dataclass(frozen=True)
class Sometimes(Chains):
    """A strategy of somebody else's."""

    chance: float = 0.5


def stored(value: Any) -> Any:
    """Through JSON text, as in a run directory."""
    return json.loads(json.dumps(encode(value)))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_built_and_comes_back_equal(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert decode(stored(recipe)) == recipe
    assert load_recipe(name) == recipe


def test_a_worlds_name_stands_for_its_tiny_recipe():
    assert load_recipe("alfworld").name == "alfworld-tiny"
    assert load_recipe("household").name == "household"


@pytest.mark.parametrize(("slot", "name"), [(slot, name) for slot, known in COMPONENTS.items() for name in known])
def test_every_component_comes_back_equal_inside_a_recipe(slot, name):
    made = component(slot, name)
    if slot == "prompt.context":
        recipe = Recipe("any", Household(), prompt=Prompt(made))
    elif slot == "branching.rule":
        recipe = Recipe("any", Household(), branching=Paced(made))
    else:
        recipe = replace(Recipe("any", Household()), **{slot: made})
    assert decode(stored(recipe)) == recipe
    assert made == component(slot, name.replace("-", "_").upper())


def test_changed_settings_come_back_too():
    recipe = Recipe(
        "changed",
        Household(kinds=("place", "two"), receptacles=(10, 12)),
        model="maker/model",
        branching=ExploreTag(width=3, at="decision"),
        prompt=Prompt(Window(2), limit=99),
        cold_start=ColdStart(demonstrations=0),
    )
    again = decode(stored(recipe))
    assert again == recipe
    assert again.env.receptacles == (10, 12)
    assert again.growth == Growth(recipe.tree, recipe.branching, recipe.prompt, recipe.sampling)
    assert hash(again.prompt) == hash(recipe.prompt)


def test_every_field_is_saved():
    saved = stored(load_recipe("quickstart"))
    assert set(saved) == {"type", *(field.name for field in fields(Recipe))}
    assert saved["prompt"]["context"]["type"] == "transcript"


def test_a_class_from_elsewhere_is_imported_only_when_allowed():
    saved = stored(replace(load_recipe("quickstart"), branching=Sometimes(0.25)))
    asked: list[str] = []
    with pytest.raises(UsageError, match="Sometimes, which is not part of spark-rl: allow its import or edit the recipe"):
        decode(saved, foreign=lambda place: bool(asked.append(place)))
    assert asked == [f"{__name__}:Sometimes"]
    assert decode(saved, foreign=lambda _: True).branching == Sometimes(0.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "tree_size"}, '"tree_size", which this version does not know .the nearest name it knows is "tree_shape"'),
        ({"type": "spark_rl.types:TreeSize"}, '"spark_rl.types:TreeSize", which this version does not know'),
        ({"type": "spark_rl.types:TreeShape"}, '"spark_rl.types:TreeShape", which this version does not know'),
        ({"type": "spark_rl.recipes:load_recipe"}, '"spark_rl.recipes:load_recipe", which this version does not know'),
        ({"type": "evaluation"}, 'the saved evaluation has the setting "budget", which this version does not know'),
        ({"leaves": 4}, 'the saved tree_shape has the setting "leaves", which this version does not know'),
        ({"budget": 0}, "tree.budget is 0: it must be at least 1"),
    ],
)
def test_a_recipe_of_another_version_is_refused(change, message):
    saved = stored(load_recipe("quickstart"))
    saved["tree"] |= change
    with pytest.raises(UsageError, match=message):
        decode(saved)


def test_a_class_from_elsewhere_must_be_a_dataclass():
    with pytest.raises(UsageError, match="collections:Counter is no dataclass"):
        decode({"type": "collections:Counter"}, foreign=lambda _: True)


def test_a_setting_that_is_missing_is_named():
    with pytest.raises(UsageError, match=r"the saved recipe refuses its settings .*'env'"):
        decode({"type": "recipe", "name": "half"})


@pytest.mark.parametrize(
    ("slot", "name", "message"),
    [
        ("branching", "explor-tag", 'unknown branching "explor-tag"; did you mean "explore-tag"'),
        ("env", "houshold", 'unknown env "houshold"; did you mean "household"'),
        ("prompt.context", "windows", 'did you mean "window"'),
        ("advantage", "zzz", r'unknown advantage "zzz" \(known: anchors'),
        ("branching", "nowhere:Class", 'branching "nowhere:Class" cannot be imported'),
        ("branching", "spark_rl.branching.chains:Chain", 'branching "spark_rl.branching.chains:Chain" cannot be imported'),
    ],
)
def test_unknown_components_suggest_the_nearest(slot, name, message):
    with pytest.raises(UsageError, match=message):
        component(slot, name)


def test_a_component_of_somebody_else_s_goes_by_its_place():
    assert component("branching", f"{__name__}:Sometimes") == Sometimes()


def test_unknown_recipes_suggest_the_nearest():
    with pytest.raises(UsageError, match='unknown recipe "quickstat"; did you mean "quickstart"'):
        load_recipe("quickstat")
    with pytest.raises(UsageError, match=r'recipe "nowhere:recipe" cannot be imported .*package.module:function'):
        load_recipe("nowhere:recipe")
    assert load_recipe("spark_rl.recipes.household:household") == load_recipe("household")


@pytest.mark.parametrize(("field", "value"), [("iterations", -1), ("tasks_per_iteration", 0), ("threads", -1)])
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(UsageError, match=f"{field} is {value}: it must be at least"):
        replace(load_recipe("quickstart"), **{field: value})


def test_worlds_and_their_components_are_the_same_list():
    assert COMPONENTS["env"] is WORLDS


def test_defaults_are_shared_values_that_nobody_can_change():
    one, other = Recipe("one", Household()), Recipe("other", Household())
    assert one.model == other.model == ScratchModel()
    with pytest.raises(AttributeError):
        one.tree.budget = 9  # type: ignore[misc]
    assert Transcript() == Transcript()
