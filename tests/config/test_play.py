"""One component says how something is played, and a wish that a command cannot honour is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny import RECIPE, WORLD, finished

from spark_rl.branching.chains import Chains
from spark_rl.branching.every_step import EveryStep
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.cli import main
from spark_rl.config.play import Play
from spark_rl.errors import UsageError
from spark_rl.types import Sampling, TreeShape


def test_a_recipe_says_how_its_runs_are_evaluated():
    how = Play.evaluating(RECIPE, temperature=0.7)
    assert (how.env, how.engine, how.prompt) == (RECIPE.env, RECIPE.engine, RECIPE.prompt)
    assert how.growth == replace(RECIPE.growth, sampling=Sampling(0.7, RECIPE.sampling.max_tokens))


def test_alone_is_one_trajectory_within_the_recipes_horizon():
    growth = Play.alone(RECIPE).single
    assert (growth.shape, growth.branching) == (TreeShape(budget=1, roots=1, horizon=RECIPE.tree.horizon), Chains())
    assert growth.sampling == Sampling(RECIPE.evaluation.temperature, RECIPE.sampling.max_tokens)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tree": TreeShape(budget=2, roots=1)}, "tree.budget is 2: one trajectory a task is played here"),
        ({"branching": ExploreTag()}, "branching is set, but one trajectory a task is played here"),
    ],
)
def test_several_trajectories_are_refused_where_one_is_played(change, sentence):
    with pytest.raises(UsageError, match=sentence):
        _ = replace(Play(env=WORLD), **change).single


def refused(capsys, *words: str) -> str:
    assert main([*words, "--quiet"]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--temperature", "0.1"], "--temperature has no effect: an expert demonstrates, not a model"),
        (["--engine.cache-gb", "1"], "--engine has no effect: an expert demonstrates, not a model"),
        (["--branching", "explore-tag"], "--branching has no effect: an expert demonstrates, not a model"),
        (["--tree.budget", "4"], "tree.budget is 4: one trajectory a task is played here, so it must be 1"),
    ],
)
def test_experts_refuse_what_only_models_can_do(capsys, tmp_path, words, sentence):
    assert sentence in refused(capsys, "demos", "household", *words, "--out", str(tmp_path / "d.jsonl"))
    assert not list(tmp_path.iterdir())


def test_a_teacher_is_no_engine_of_this_process(capsys):
    words = ["--teacher", "m", "--base-url", "http://127.0.0.1:9/v1", "--engine.cache-gb", "1"]
    assert "--engine has no effect: a teacher is asked by its server" in refused(capsys, "collect", "household", *words)


@pytest.mark.parametrize(
    "words",
    [
        ["--policy", "branching", "--branching", "chains"],
        ["--policy", "branching", "--branching", "revisits"],
        ["--choose", "majority", "--branching", "hybrid"],
    ],
)
def test_branching_by_a_rule_that_waits_for_outcomes_is_refused(capsys, words):
    said = refused(capsys, "eval", str(finished()[0].directory), "--temperature", "1", *words)
    assert "forks only after outcomes are known, or never" in said
    assert "--branching explore-tag" in said


def test_an_evaluation_branches_by_the_recipes_own_rule(tmp_path):
    """Whatever the rule: it used to be replaced by the tag's without a word."""
    run, out = finished()[0], tmp_path / "out"
    words = ["--branching", "every-step", "--tree.budget", "3", "--tree.roots", "1", "--temperature", "1"]
    words += ["--policy", "branching", "--level", "L0", "--tasks", "2", "--out", str(out), "--quiet"]
    assert main(["eval", str(run.directory), *words]) == 0
    assert json.loads((out / "settings.json").read_text())["branching"]["type"] == "every_step"
    found = json.loads((out / "results.json").read_text())["L0"]["branching"]
    assert found["leaves"] == 3
    assert Play.evaluating(replace(RECIPE, branching=EveryStep())).branching == EveryStep()
