"""A log-linear policy over admissible actions, with a learned explore head: numpy only, for studies of algorithms.

Invariants
----------
* What was sampled is what is learnt from: each sample's features, choice and log-probabilities are kept under its address
  until `forget`.
* It speaks the language of every other policy (`prompting.respond`), so that rollouts and estimators see no difference.

In state s, action a has the logit w . f(s, a) and the tag `explore` the logit v . g(s). Features are sparse: each action
names the few that are not zero. So a study of what takes hours with a language model takes a minute; it tells how
algorithms compare where representation is no problem, and nothing of how models generalise.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Cost, Request

__all__ = ["Decisions", "LogLinear", "Options", "Weights", "gradient", "logprobs", "stack"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Options(NamedTuple):
    """What can be done in a state: A actions of at most K features, and the J features of the state itself."""

    actions: tuple[str, ...]
    feature: Ints
    """Features of each action, [A, K]; unused places name any feature with value 0."""
    value: Floats
    """Their values, [A, K]."""
    state: Ints
    """Features of the state, of value 1 each, [J]."""


class Weights(NamedTuple):
    """The policy's parameters."""

    action: Floats
    """w, one for each feature of an action."""
    explore: Floats
    """v, one for each feature of a state."""


class Decisions(NamedTuple):
    """B decisions, their options padded to the most actions."""

    feature: Ints
    """[B, A, K]"""
    value: Floats
    """[B, A, K]"""
    real: NDArray[np.bool_]
    """False in the padding, [B, A]."""
    state: Ints
    """[B, J]"""
    chosen: Ints
    """[B]"""
    explored: NDArray[np.bool_]
    """[B]"""


@dataclass
class LogLinear:
    """Samples an action and a tag for each seed: `ids` are the action's number, and 1 for explore or 0."""

    features: Callable[[Request], Options]
    weights: Weights
    shown: dict[tuple[int, ...], tuple[Options, int, bool]] = field(
        default_factory=dict[tuple[int, ...], tuple[Options, int, bool]]
    )
    """What was drawn from what, by the address of the step: (tree, *path)."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """One draw for each seed; at temperature 0 the likeliest action."""
        return [self._draw(request) for request in requests]

    def forget(self) -> None:
        """Drop what has been shown: before a new forest, whose addresses are the same."""
        self.shown.clear()

    def _draw(self, request: Request) -> list[Completion]:
        options = self.features(request)
        logits = (self.weights.action[options.feature] * options.value).sum(axis=1)
        if request.temperature:
            logits = logits / request.temperature
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        entropy = -float(chances @ np.log(np.maximum(chances, 1e-300)))
        ends = np.cumsum(chances).tolist()
        explore = 1 / (1 + math.exp(-float(self.weights.explore[options.state].sum())))
        completions: list[Completion] = []
        for seed, address in zip(request.seeds, request.children, strict=True):
            rng = random.Random(seed)
            draw, tag = rng.random() * ends[-1], rng.random() < explore
            chosen = min(bisect(ends, draw), len(ends) - 1) if request.temperature else int(np.argmax(logits))
            self.shown[address] = options, chosen, tag
            said = math.log(chances[chosen]), math.log(explore if tag else 1 - explore)
            text = respond("explore" if tag else "think", "Chosen.", options.actions[chosen])
            unsure = entropy, -explore * math.log(explore) - (1 - explore) * math.log(1 - explore)
            completions.append(Completion(text, (chosen, int(tag)), said, unsure, cost=Cost(generated=2)))
        return completions


def stack(shown: Sequence[tuple[Options, int, bool]]) -> Decisions:
    """Decisions side by side."""
    most = max(len(options.actions) for options, *_ in shown)
    width = shown[0][0].feature.shape[1]
    feature, value = np.zeros((len(shown), most, width), np.int64), np.zeros((len(shown), most, width))
    real = np.zeros((len(shown), most), np.bool_)
    for row, (options, *_) in enumerate(shown):
        size = len(options.actions)
        feature[row, :size], value[row, :size], real[row, :size] = options.feature, options.value, True
    state = np.stack([options.state for options, *_ in shown])
    chosen = np.array([number for _, number, _ in shown])
    return Decisions(feature, value, real, state, chosen, np.array([tag for *_, tag in shown]))


def logprobs(weights: Weights, decisions: Decisions) -> tuple[Floats, Floats]:
    """Log-probabilities of all actions, [B, A], and the probability of the explore tag, [B], at temperature 1."""
    logits = np.where(decisions.real, (weights.action[decisions.feature] * decisions.value).sum(axis=2), -np.inf)
    logits -= logits.max(axis=1, keepdims=True)
    explore = 1 / (1 + np.exp(-weights.explore[decisions.state].sum(axis=1)))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), explore


def gradient(weights: Weights, decisions: Decisions, push: Callable[[Floats], Floats]) -> Weights:
    """Gradient of sum_b c_b * log-probability of decision b (its action and its tag together).

    Args:
        weights: where it is taken.
        decisions: the decisions.
        push: from their log-probabilities under `weights`, [B], the coefficients c, [B].
    """
    actions, explore = logprobs(weights, decisions)
    rows = np.arange(len(decisions.chosen))
    own = actions[rows, decisions.chosen] + np.log(np.where(decisions.explored, explore, 1 - explore))
    c = push(own)
    by_action = -np.exp(actions)
    by_action[rows, decisions.chosen] += 1
    along = (c[:, None] * by_action)[:, :, None] * decisions.value
    on_actions = np.bincount(decisions.feature.ravel(), along.ravel(), len(weights.action))
    by_state = np.repeat(c * (decisions.explored - explore), decisions.state.shape[1])
    on_states = np.bincount(decisions.state.ravel(), by_state, len(weights.explore))
    return Weights(on_actions.astype(np.float64), on_states.astype(np.float64))
