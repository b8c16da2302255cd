"""Trees grow at their own pace, and come out as if they had not."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from forking import Hand, Lock, Locks, grow, lock
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import elapsed

from spark_rl.branching.chains import Chains
from spark_rl.branching.every_step import EveryStep
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.branching.hybrid import Hybrid
from spark_rl.branching.new_roots import NewRoots
from spark_rl.branching.paced import Paced
from spark_rl.branching.revisits import Revisits
from spark_rl.contracts import Branching, Growth
from spark_rl.errors import PolicyFailure
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Completion, Forest, Request, Sampling, TreeShape


@dataclass
class Slow(Hand):
    """Answers each request after a time of its own: long for few, short for most, as on a busy server."""

    in_rounds: bool = False
    waits: int = 0

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        # One call takes as long as its slowest request, as a batch does.
        await asyncio.sleep(max(random.Random(seed).expovariate(1.0) for request in requests for seed in request.seeds))
        self.waits += 1
        return await super().sample(requests)


def forest_of(policy: Hand, branching: Branching, wheels: Sequence[int], **shape: Any) -> tuple[Forest, float]:
    plan = Growth(TreeShape(**shape), branching, Prompt(instructions="none"), Sampling())
    return elapsed(grow_forest([lock(number) for number in wheels], Locks(), policy, plan, seed=3))


def test_sixteen_trees_do_not_wait_for_the_slowest():
    """In at most 0.6 of the time that rounds take; the trees are the same."""
    shape = {"budget": 4, "roots": 2, "horizon": 12}
    wheels = [3, 4, 5, 6] * 4
    together, rounds = forest_of(Slow(in_rounds=True), ExploreTag(), wheels, **shape)
    apart, own = forest_of(Slow(), ExploreTag(), wheels, **shape)
    assert apart == together
    assert own <= 0.6 * rounds


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from([ExploreTag(), EveryStep(at="decision"), Paced(EveryStep(), gap=1, spread=True), Revisits(),
                          Revisits(one_by_one=True, exclude=True), Hybrid(), NewRoots(one_by_one=True), Chains()]),
    wheels=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    more=st.integers(0, 4),
    cap=st.integers(0, 4),
)  # fmt: skip
def test_the_forest_does_not_depend_on_the_pace(rule, wheels, more, cap):
    """Budgets that move between tasks included: who gets a leaf is decided in the order of the trees."""
    shape = {"budget": 2 + more, "roots": 2, "horizon": 8, "cap": (2 + more + cap) if cap else 0}
    together, _ = forest_of(Hand(in_rounds=True), rule, wheels, **shape)
    apart, _ = forest_of(Slow(), rule, wheels, **shape)
    assert apart == together


def test_rules_that_only_plan_need_not_wait_although_leaves_move_between_tasks():
    rule, shape = Revisits(), {"budget": 4, "roots": 2, "horizon": 12, "cap": 8}
    _, rounds = forest_of(Slow(in_rounds=True), rule, [3, 4, 5, 6] * 4, **shape)
    _, own = forest_of(Slow(), rule, [3, 4, 5, 6] * 4, **shape)
    assert own < 0.8 * rounds


def test_in_rounds_the_policy_sees_what_all_trees_ask():
    policy = Hand(explore=0.0, sun=1.0)
    grow([1, 2, 4], Chains(), policy, roots=2, budget=2, horizon=9)
    assert policy.calls == [6, 4, 2, 2]


def test_an_error_of_the_policy_ends_all_trees():
    class Broken(Slow):
        async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
            answers = await super().sample(requests)
            if self.waits == 5:
                raise PolicyFailure("the server is gone")
            return answers

    for in_rounds in (True, False):
        with pytest.raises(PolicyFailure, match="the server is gone"):
            forest_of(Broken(in_rounds=in_rounds), ExploreTag(), [4] * 6, budget=4, roots=2, horizon=9)


def test_answers_are_counted():
    class Mute(Hand):
        async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
            return [[] for _ in requests]

    with pytest.raises(PolicyFailure, match="as many completions as were asked for"):
        grow([2], Chains(), Mute(), roots=1, budget=1)


# -- environments in other processes -----------------------------------------------------------------------------------


@dataclass
class Meeting:
    """Calls that must meet: none is answered before so many are under way."""

    parties: int
    most: int = 0
    _inside: int = 0
    _gate: threading.Condition = field(default_factory=threading.Condition)

    def call(self) -> None:
        with self._gate:
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._gate.notify_all()
            self._gate.wait_for(lambda: self.most >= self.parties, timeout=20)
            self._inside -= 1


@dataclass
class Remote(Lock):
    """A lock in another process, as far as the rollout can tell."""

    out_of_process: bool = True
    meeting: Meeting | None = None

    def step(self, action: str):
        if self.meeting and not self.turned:
            self.meeting.call()
        return super().step(action)

    def fork(self) -> Remote:
        return replace(self)


@dataclass(frozen=True)
class Remotes(Locks):
    meeting: Meeting | None = None

    def make(self) -> Remote:
        return Remote(self.fork_cost, meeting=self.meeting)


def test_steps_of_environments_in_other_processes_overlap():
    """Four trees' first steps are under way at once, or the test would wait for its time limit."""
    meeting = Meeting(4)
    forest = grow([2] * 4, Chains(), world=Remotes(meeting=meeting), roots=1, budget=1, horizon=4)
    assert meeting.most == 4
    assert forest == grow([2] * 4, Chains(), roots=1, budget=1, horizon=4)


@pytest.mark.parametrize("rule", [ExploreTag(), EveryStep(), Revisits(exclude=True)])
def test_overlapping_steps_change_nothing(rule):
    shape: dict[str, Any] = {"roots": 2, "budget": 4, "cap": 7, "horizon": 6}
    assert grow([2, 3, 4], rule, world=Remotes(), **shape) == grow([2, 3, 4], rule, **shape)
