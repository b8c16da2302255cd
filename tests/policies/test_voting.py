"""A vote among answers, with answers by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from spark_rl.contracts import Policy
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.policies.scripted import RandomActions
from spark_rl.policies.voting import Voting, mean_logprob, modal
from spark_rl.prompting.parsing import parse, respond
from spark_rl.types import Completion, Cost, Mode, Observation, Request, Task

TASK = Task("none", "0", "find the door")


@dataclass
class Deck:
    """Answers in the order they are asked for; tokens are as many as given log-probabilities."""

    answers: list[tuple[Mode, str, tuple[float, ...]]]
    asked: list[Request] = field(default_factory=list)

    async def sample(self, requests):
        self.asked += requests
        return [[self._next() for _ in request.seeds] for request in requests]

    def _next(self) -> Completion:
        mode, action, logprobs = self.answers.pop(0)
        ids = tuple(range(len(logprobs))) or None
        return Completion(respond(mode, "So.", action), ids, logprobs or None, cost=Cost(generated=len(logprobs)))


def request(n: int = 1, actions: tuple[str, ...] = ()) -> Request:
    paths = tuple((0, number) for number in range(n))
    return Request(TASK, (), Observation("You see.", actions), tuple(range(n)), parent=(0,), children=paths)


def play(policy: Policy, *requests: Request) -> list[list[str]]:
    assert isinstance(policy, Policy)
    answers = asyncio.run(policy.sample(requests))
    return [[parse(completion.text).action for completion in answer] for answer in answers]


def test_the_modal_action_of_an_exploring_state_is_executed():
    deck = Deck(
        [
            ("explore", "north", (-1.0,)),
            ("think", "west", (-1.0,)),
            *[("explore", "south", (-1.0, -1.0)), ("think", "south", (-1.0,)), ("think", "east", (-1.0,))],
        ]
    )
    voted, plain = (answer for (answer,) in asyncio.run(Voting(deck, 4).sample([request(), request()])))
    assert [parse(one.text).action for one in (voted, plain)] == ["south", "west"]
    assert [each.n for each in deck.asked] == [1, 1, 3], "only where the policy explores is it asked again"
    assert deck.asked[2].children == ((0, 0),) * 3
    assert len({*deck.asked[0].seeds, *deck.asked[2].seeds}) == 4
    # The first "south", of two tokens, was executed; "north", the other "south" and "east" had one each.
    assert (voted.cost, plain.cost) == (Cost(generated=5, discarded=3), Cost(generated=1))


def test_a_tie_goes_to_the_first():
    assert modal(["b", "a", "a", "b"]) == "b"
    deck = Deck([("explore", "north", ()), ("think", "south", ())])
    assert play(Voting(deck, 2), request()) == [["north"]]


def test_the_likelier_is_executed_a_token_counting_alike():
    deck = Deck([("explore", "north", (-1.0,)), ("think", "south", (-0.9, -0.9, -0.9))])
    assert play(Voting(deck, 2, "likelihood"), request()) == [["south"]]
    assert mean_logprob([(-1.0,), (-0.5, -0.25, -0.25)]) == -0.5


def test_without_log_probabilities_only_a_vote_is_possible():
    deck = Deck([("explore", "north", ()), ("think", "south", ())])
    with pytest.raises(PolicyFailure, match="majority"):
        play(Voting(deck, 2, "likelihood"), request())


def test_each_sample_of_a_request_has_a_vote_of_its_own_whatever_else_is_asked():
    actions = tuple("abc")

    def voting() -> Voting:
        return Voting(RandomActions(explore=0.7), 5)

    [together] = play(voting(), request(6, actions))
    [alone] = play(voting(), request(2, actions))
    assert together[:2] == alone
    [unchanged] = play(RandomActions(explore=0.7), request(6, actions))
    assert together != unchanged


def test_a_vote_of_one_is_refused():
    with pytest.raises(UsageError, match="width"):
        Voting(RandomActions(), 1)
