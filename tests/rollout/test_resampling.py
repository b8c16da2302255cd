"""Drawing again what has been taken already: bounded, counted, and reproducible."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from forking import lock

from spark_rl.prompting.parsing import parse
from spark_rl.rollout.resampling import TRIES, resample
from spark_rl.types import Completion, Cost, Observation, Request


@dataclass
class Reader:
    """Reads its actions off a list, one a sample; three tokens each."""

    lines: list[str]
    seeds: list[tuple[int, ...]] = field(default_factory=list)
    children: list[tuple[tuple[int, ...], ...]] = field(default_factory=list)

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.seeds += [request.seeds for request in requests]
        self.children += [request.children for request in requests]
        return [
            [
                Completion(f"<think>so</think><action>{self.lines.pop(0)}</action>", (1, 2, 3), cost=Cost(generated=3))
                for _ in request.seeds
            ]
            for request in requests
        ]


def request(*seeds: int) -> Request:
    return Request(lock(3), (), Observation(""), seeds, children=tuple((0, seed) for seed in seeds))


def drawn(policy: Reader, requests: list[Request], taken: dict[int, set[str]]) -> tuple[list[list[str]], int]:
    """The actions that stand in the end, and the tokens thrown away."""

    async def ask(attempt: int, some: Sequence[Request], of: Sequence[int]) -> list[list[Completion]]:
        return await policy.sample(some)

    async def both() -> list[list[Completion]]:
        answers = await policy.sample(requests)
        await resample(ask, requests, answers, taken, parse)
        return answers

    answers = asyncio.run(both())
    actions = [[one.text.split("<action>")[1].removesuffix("</action>") for one in answer] for answer in answers]
    cost = sum((one.cost for answer in answers for one in answer), Cost())
    assert cost.generated == 3 * sum(map(len, policy.seeds)), "every draw is paid for, whatever became of it"
    return actions, cost.discarded


def test_only_repeats_are_drawn_again():
    policy = Reader(["sun", "star", "sun", "moon"])
    assert drawn(policy, [request(1), request(2), request(3)], {0: {"sun"}, 1: {"sun"}}) == (
        [["moon"], ["star"], ["sun"]],
        3,
    )
    assert len(policy.seeds) == 4
    assert policy.seeds[3] != (1,)
    assert policy.children[3] == ((0, 1),)  # it takes the place of the one thrown away


def test_siblings_of_one_state_differ_from_one_another_too():
    """Three samples of two requests for one state, and all start with the same."""
    shared: set[str] = set()
    policy = Reader(["sun", "sun", "sun", "moon", "sun", "star"])
    assert drawn(policy, [request(1, 2), request(3)], {0: shared, 1: shared}) == ([["sun", "moon"], ["star"]], 9)
    assert shared == {"sun", "moon", "star"}


def test_in_the_end_the_repeat_stays():
    policy = Reader(["sun"] * (TRIES + 1))
    assert drawn(policy, [request(1)], {0: {"sun"}}) == ([["sun"]], 3 * TRIES)
    assert policy.lines == []
    assert len(set(policy.seeds)) == TRIES + 1
