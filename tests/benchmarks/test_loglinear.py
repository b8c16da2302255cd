import asyncio
import math

import numpy as np
import pytest
from loglinear import LogLinear, Options, Weights, gradient, logprobs, stack  # pyright: ignore[reportMissingImports]
from trees import TASK

from spark_rl.prompting.parsing import parse
from spark_rl.types import Observation, Request

STATES = {
    "two": Options(("left", "right"), np.array([[0, 2], [1, 2]]), np.array([[1.0, 0.5], [1.0, 0.0]]), np.array([0])),
    "three": Options(("a", "b", "c"), np.array([[0, 1], [1, 2], [2, 0]]), np.ones((3, 2)), np.array([1])),
}
WEIGHTS = Weights(np.array([0.3, -0.2, 0.8]), np.array([0.4, -1.0]))


def request(state, seeds, temperature=1.0):
    children = tuple((0, number) for number in range(len(seeds)))
    return Request(TASK, (), Observation(state), tuple(seeds), parent=(0,), children=children, temperature=temperature)


def policy():
    return LogLinear(lambda asked: STATES[asked.observation.text], WEIGHTS)


def sample(asked, of):
    return asyncio.run(of.sample([asked]))[0]


def test_logits_are_sums_of_weights_times_values():
    """left: 0.3 + 0.5 * 0.8 = 0.7, right: -0.2; explore: 0.4."""
    actions, explore = logprobs(WEIGHTS, stack([(STATES["two"], 0, True)]))
    assert math.exp(actions[0, 0]) == pytest.approx(1 / (1 + math.exp(-0.9)))
    assert explore[0] == pytest.approx(1 / (1 + math.exp(-0.4)))


def test_it_draws_as_often_as_it_says():
    completions = sample(request("two", range(4000)), policy())
    said = [parse(completion.text) for completion in completions]
    assert all(parsed.well_formed for parsed in said)
    assert sum(parsed.action == "left" for parsed in said) / 4000 == pytest.approx(0.711, abs=0.025)
    assert sum(parsed.mode == "explore" for parsed in said) / 4000 == pytest.approx(0.599, abs=0.025)


def test_what_it_remembers_is_what_it_said():
    one = policy()
    completions = sample(request("three", range(9)), one)
    decisions = stack([one.shown[0, number] for number in range(9)])
    actions, explore = logprobs(WEIGHTS, decisions)
    for row, completion in enumerate(completions):
        assert STATES["three"].actions[decisions.chosen[row]] == parse(completion.text).action
        tag = explore[row] if decisions.explored[row] else 1 - explore[row]
        assert completion.logprobs == pytest.approx((actions[row, decisions.chosen[row]], math.log(tag)))
        assert completion.entropies == pytest.approx(
            (
                -(np.exp(actions[row]) @ actions[row]),
                -explore[row] * math.log(explore[row]) - (1 - explore[row]) * math.log(1 - explore[row]),
            )
        )
    one.forget()
    assert not one.shown


def test_one_seed_one_sample_and_zero_temperature_is_greedy():
    assert sample(request("three", (5, 5)), policy())[0] == sample(request("three", (5, 5)), policy())[1]
    assert {parse(c.text).action for c in sample(request("two", range(20), temperature=0.0), policy())} == {"left"}


def test_the_gradient_is_that_of_the_log_probabilities():
    """Against differences, decisions of unequal numbers of actions side by side."""
    decisions = stack([(STATES["two"], 1, True), (STATES["three"], 2, False), (STATES["three"], 0, True)])
    c = np.array([1.5, -0.5, 2.0])

    def objective(weights):
        actions, explore = logprobs(weights, decisions)
        own = actions[np.arange(3), decisions.chosen]
        return float(c @ (own + np.log(np.where(decisions.explored, explore, 1 - explore))))

    slope = gradient(WEIGHTS, decisions, lambda own: c)
    for part, by_hand in enumerate(slope):
        for index in range(len(by_hand)):
            up, down = (Weights(*(w.copy() for w in WEIGHTS)) for _ in range(2))
            up[part][index] += 1e-6
            down[part][index] -= 1e-6
            assert by_hand[index] == pytest.approx((objective(up) - objective(down)) / 2e-6, abs=1e-8)
