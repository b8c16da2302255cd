"""Engines are components: chosen by name, set by their fields, opened in one place, given the weights that are trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import twin
from tiny import RECIPE, Log, finished, start, untimed

from spark_rl.commands.train import train as train_command  # noqa: F401  the command imports what it opens
from spark_rl.config.options import parse_recipe
from spark_rl.contracts import EngineSettings
from spark_rl.engines.local.settings import Local
from spark_rl.engines.openai import Endpoint
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.learning.trainer import train
from spark_rl.models.load import load_model
from spark_rl.runs.forests import load_forest


def chosen(*words: str) -> EngineSettings:
    return parse_recipe(RECIPE, words, "train").engine


def test_an_engine_is_chosen_by_name_and_set_by_its_fields():
    assert chosen("--engine.cache-gb", "0.5") == Local(cache_gb=0.5)
    assert chosen("--engine", "openai", "--engine.base-url", "http://localhost:1/v1") == Endpoint("http://localhost:1/v1")
    assert chosen("--engine", "twin:Twin", "--engine.cache-gb", "1", "--engine.words", "a", "b") == twin.Twin(1, ("a", "b"))
    for engine in (Local(), Endpoint(), twin.Twin()):
        assert isinstance(engine, EngineSettings)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--engine", "locl"], 'unknown engine "locl"; did you mean "local"?'),
        (["--engine.cache-gb", "-1"], "engine.cache_gb is -1.0: it must be at least 0"),
        (["--engine", "twin:Nobody"], 'engine "twin:Nobody" cannot be imported'),
    ],
)
def test_an_engine_that_cannot_be_chosen(words, sentence):
    with pytest.raises(UsageError, match=sentence):
        chosen(*words)


def test_an_engine_with_weights_of_its_own_trains_as_the_one_that_shares_them(tmp_path):
    """After every update it has the trainer's weights: forests, log and final weights are the same to the bit."""
    twin.LOADED.clear()
    shared, apart = (
        start(tmp_path / name, iterations=3, engine=engine) for name, engine in (("shared", Local()), ("apart", twin.Twin()))
    )
    for run in (shared, apart):
        train(run, Log())
    assert untimed(apart.metrics()) == untimed(shared.metrics())
    for iteration in (1, 2, 3):
        ours, theirs = (load_forest(run.directory, iteration) for run in (shared, apart))
        assert theirs == ours
        assert theirs.version == iteration - 1
        assert {node.version for tree in theirs for node in tree.nodes} == {iteration - 1}
    expected = load_model(shared.checkpoints / "000003").state_dict()
    assert all(torch.equal(w, expected[name]) for name, w in load_model(apart.checkpoints / "000003").state_dict().items())
    assert twin.LOADED == [1, 2, 3]


def test_a_resumed_run_hands_the_checkpoints_weights_on(tmp_path):
    run = start(tmp_path / "run", iterations=4, engine=twin.Twin())
    with pytest.raises(KeyboardInterrupt):
        train(run, Log(stop_after=2))
    twin.LOADED.clear()
    train(run, Log())
    assert twin.LOADED == [2, 3, 4]
    whole = start(tmp_path / "whole", iterations=4, engine=Local())
    train(whole, Log())
    assert untimed(run.metrics()) == untimed(whole.metrics())


def test_an_engine_without_token_ids_is_refused_before_anything_is_trained(tmp_path):
    run = start(tmp_path / "run", engine=twin.Mute())
    with pytest.raises(UsageError, match="gives no token ids, so nothing can be learnt from it: --engine local"):
        train(run, Log())
    assert finished()[0].recipe == replace(run.recipe, engine=RECIPE.engine, evaluation=RECIPE.evaluation)


def test_training_with_a_server_that_is_not_there_is_refused_before_anything_is_trained(tmp_path):
    run = start(tmp_path / "run", iterations=1, engine=Endpoint("http://localhost:1/v1", retries=0))
    with pytest.raises(PolicyFailure, match="localhost:1/v1/ cannot be reached: is the server up"):
        train(run, Log())
    assert not run.metrics()
