"""Drawing again what has been taken already: bounded, counted, and reproducible."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from forking import lock

from spark_rl.errors import PolicyFailure
from spark_rl.rollout.resampling import TRIES, ask, resample
from spark_rl.types import Completion, Observation, Request, Spent


@dataclass
class Reader:
    """Reads its actions off a list, one a sample; three tokens each."""

    lines: list[str]
    seeds: list[tuple[int, ...]] = field(default_factory=list)
    children: list[tuple[tuple[int, ...], ...]] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.seeds += [request.seeds for request in requests]
        self.children += [request.children for request in requests]
        return [
            [Completion(f"<think>so</think><action>{self.lines.pop(0)}</action>", (1, 2, 3)) for _ in request.seeds]
            for request in requests
        ]


def request(*seeds: int) -> Request:
    return Request(lock(3), (), Observation(""), seeds, children=tuple((0, seed) for seed in seeds))


def drawn(policy: Reader, requests: list[Request], taken: dict[int, set[str]]) -> tuple[list[list[str]], int]:
    """The actions that stand in the end, and the tokens thrown away."""

    async def both() -> tuple[list[list[Completion]], int]:
        spent, answers = Spent(), await ask(policy, requests)
        await resample(policy, requests, answers, taken, spent)
        return answers, spent.discarded

    answers, discarded = asyncio.run(both())
    return [[one.text.split("<action>")[1].removesuffix("</action>") for one in answer] for answer in answers], discarded


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


def test_answers_are_counted():
    class Mute(Reader):
        async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
            return [[] for _ in requests]

    with pytest.raises(PolicyFailure, match="as many completions as were asked for"):
        asyncio.run(ask(Mute([]), [request(1)]))
