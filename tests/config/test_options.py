"""Every field of a recipe is an option, and whatever is wrong is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.branching.chains import Chains
from spark_rl.branching.probability import Probability
from spark_rl.config.options import INLINE, parse, parse_recipe, take
from spark_rl.config.recipe import Recipe
from spark_rl.environments.household import Household
from spark_rl.errors import UsageError
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.recipes.algorithms import with_algorithm

RECIPE = load_recipe("quickstart")


def set_(*argv: str, recipe: Recipe = RECIPE) -> Recipe:
    return parse_recipe(recipe, argv, "spark-rl train quickstart")


def refusal(*argv: str) -> str:
    with pytest.raises(UsageError) as caught:
        set_(*argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for f in fields(value):
        inner, name = getattr(value, f.name), prefix + f.name.replace("_", "-")
        if is_dataclass(inner):
            yield from leaves(inner, name + ".")
        else:
            yield name, inner


@dataclass(frozen=True)
class Corridor:
    """A user's own world, with options of its own."""

    length: int = 5
    """How far the door is."""
    light: Literal["on", "off"] = "on"

    name = "corridor"

    def tasks(self, level: str, split: str) -> tuple[()]:
        return ()

    def make(self) -> None:
        return None


@dataclass(frozen=True)
class Command:
    """Do something with a recipe."""

    out: Path
    """Where it goes."""
    recipe: Recipe = field(metadata=INLINE)


# -- setting --------------------------------------------------------------------------------------------------------


def test_nothing_said_nothing_changed():
    assert set_() is RECIPE


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_takes_its_own_value(name):
    recipe = load_recipe(name)
    words: list[str] = []
    for option, value in leaves(recipe):
        words += [f"--{option}", *map(str, value if isinstance(value, tuple) else [value])]
    assert set_(*words, recipe=recipe) == recipe


def test_fields_of_all_depths():
    recipe = set_(
        "--iterations", "20", "--tree.budget=16", "--tree.roots", "12", "--prompt.context.actions", "changes",
        "--env.kinds", "place", "heat", "--loss.entropy", "-0.0", "--env.receptacles", "8", "9",
    )  # fmt: skip
    assert recipe.iterations == 20
    assert recipe.tree == replace(RECIPE.tree, budget=16, roots=12)
    assert recipe.prompt == replace(RECIPE.prompt, context=Transcript("changes", repeat_task=True))
    assert recipe.env == replace(RECIPE.env, kinds=("place", "heat"), receptacles=(8, 9))  # pyright: ignore[reportArgumentType]
    assert type(recipe) is Recipe
    assert type(recipe.env) is Household


def test_values_that_are_valid_only_together_come_in_any_order():
    expected = replace(RECIPE, tree=replace(RECIPE.tree, budget=12, roots=10))
    assert set_("--tree.roots", "10", "--tree.budget", "12") == expected
    assert set_("--tree.budget", "12", "--tree.roots", "10") == expected


@settings(max_examples=20)
@given(
    budget=st.integers(1, 64),
    share=st.floats(0, 1),
    rate=st.floats(1e-9, 1, allow_nan=False),
    dashes=st.booleans(),
    equals=st.booleans(),
)
def test_dashes_underscores_and_equal_signs_mean_the_same(budget, share, rate, dashes, equals):
    roots = max(1, int(budget * share))
    given_ = {"tree.roots": roots, "tree.budget": budget, "optimizer.learning_rate": rate}
    argv: list[str] = []
    for name, value in given_.items():
        option = "--" + (name.replace("_", "-") if dashes else name)
        argv += [f"{option}={value}"] if equals else [option, str(value)]
    recipe = set_(*argv)
    assert (recipe.tree.roots, recipe.tree.budget, recipe.optimizer.learning_rate) == (roots, budget, rate)


@pytest.mark.parametrize(
    "words", [["--prompt.list-actions"], ["--prompt.list_actions=true"], ["--prompt.list-actions", "True"]]
)
def test_a_switch_alone_means_true(words):
    assert set_(*words).prompt.list_actions


def test_a_switch_can_be_turned_off():
    assert not set_("--advantage.std", "false").advantage.std  # pyright: ignore[reportAttributeAccessIssue]


def test_the_last_one_wins():
    assert set_("--seed", "1", "--seed", "2").seed == 2


# -- components -----------------------------------------------------------------------------------------------------


def test_components_are_chosen_before_their_fields_are_set():
    recipe = set_("--branching.probability", "0.5", "--branching", "probability", "--prompt.context", "window")
    assert recipe.branching == Probability(probability=0.5)
    assert recipe.prompt.context == Window()
    assert set_("--branching", "chains").branching == Chains()
    assert set_("--prompt.context.history", "3", "--prompt.context", "Window").prompt.context == Window(3)


def test_a_component_may_be_somebody_elses_class():
    recipe = set_("--env", f"{__name__}:Corridor", "--env.length", "9", "--env.light", "off")
    assert type(recipe.env).__name__ == "Corridor"
    assert (recipe.env.length, recipe.env.light) == (9, "off")  # pyright: ignore[reportAttributeAccessIssue]


def test_a_model_directory_replaces_a_model_from_nothing():
    named = set_("--model", "some/where")
    assert named.model == "some/where"
    assert set_("--model", "else/where", recipe=named).model == "else/where"
    assert set_("--model.hidden", "128").model == replace(RECIPE.model, hidden=128)  # pyright: ignore[reportArgumentType]


def test_a_commands_own_options_stand_beside_the_recipes():
    command = parse(Command(Path("here"), RECIPE), ["--out", "a/b", "--tree.horizon", "9"], "spark-rl do")
    assert command == Command(Path("a/b"), replace(RECIPE, tree=replace(RECIPE.tree, horizon=9)))


# -- refusing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--tree.bugdet", "8"], ['"--tree.bugdet"', 'did you mean "--tree.budget"?']),
        (["--budget", "8"], ['did you mean "--tree.budget"?']),
        (["--xyzzy", "8"], ['unknown option "--xyzzy"', "train quickstart --help"]),
        (["--iterations", "many"], ['--iterations is "many"', "a whole number"]),
        (["--iterations", "3", "4"], ['--iterations is "3 4"', "a whole number"]),
        (["--iterations"], ["--iterations is without a value", "a whole number"]),
        (["--loss.kl", "big"], ["--loss.kl", "a number"]),
        (["--level", "L9"], ['--level is "L9"', "one of L0, L1, L2"]),
        (["--prompt.list-actions", "maybe"], ["--prompt.list-actions", "True or False"]),
        (["--env.receptacles", "8"], ["--env.receptacles", "2 values"]),
        (["--evaluation.levels", "L1", "L5"], ["--evaluation.levels", "one of L0, L1, L2"]),
        (["--tree.roots", "12", "--iterations", "x"], ["--iterations"]),
        (["--tree.roots", "9"], ["tree.roots is 9", "tree.budget 8"]),
        (["--branching.width", "1"], ["branching.width is 1", "at least 2"]),
        (["--branching", "chain"], ["branching", 'did you mean "chains"?']),
        (["--branching", "no.where:Thing"], ["no.where:Thing", "cannot be imported"]),
        (["--branching"], ["--branching takes one value", "chains"]),
        (["--tree", "8"], ["--tree is a group of options", "--tree.budget"]),
        (["stray", "--seed", "1"], ['unexpected argument "stray"']),
    ],
)
def test_what_is_wrong_is_named(argv, parts):
    sentence = refusal(*argv)
    for part in parts:
        assert part in sentence


def test_refusals_print_nothing(capsys):
    refusal("--iterations", "many")
    assert capsys.readouterr() == ("", "")


# -- help -----------------------------------------------------------------------------------------------------------


def test_help_documents_every_field(capsys):
    with pytest.raises(SystemExit) as stopped:
        set_("--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for option, _ in leaves(RECIPE):
        assert f"--{option}" in text
    assert "--branching explore-tag|probability|chains|" in text
    assert "--model DIRECTORY|NAME" in text
    assert "N: leaves of a tree on average" in text
    assert "noqa" not in text


def test_help_is_about_the_components_chosen(capsys):
    with pytest.raises(SystemExit):
        set_("--branching", "probability", "--help")
    text = capsys.readouterr().out
    assert "--branching.probability" in text
    assert "Probability that a step asks for a fork" in text


# -- take -----------------------------------------------------------------------------------------------------------


def test_take():
    assert take(["--seed", "1", "--from", "runs/a", "--tree.budget", "4"], "--from") == (
        "runs/a",
        ["--seed", "1", "--tree.budget", "4"],
    )
    assert take(["--from=runs/a"], "--from") == ("runs/a", [])
    assert take(["--seed", "1"], "--from") == (None, ["--seed", "1"])
    for argv in (["--from"], ["--from", "--seed", "1"]):
        with pytest.raises(UsageError, match="--from needs a value"):
            take(argv, "--from")


def test_parts_of_a_component_are_numbered():
    recipe = with_algorithm(RECIPE, "gigpo")
    group, anchors = recipe.advantage.parts  # type: ignore[attr-defined]
    changed = set_("--advantage.parts.1.gamma", "0.8", recipe=recipe)
    assert changed.advantage.parts == (group, replace(anchors, gamma=0.8))  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r'"--advantage\.parts\.2\.gamma"; did you mean "--advantage\.parts\.1\.gamma"'):
        parse_recipe(recipe, ["--advantage.parts.2.gamma", "0.8"], "train")
