"""What a policy plays on training tasks: kept apart by outcome, what broke off named, the same again on the same call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from shown import WORLD

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Growth, Policy
from spark_rl.data.format import Demonstration, origin
from spark_rl.data.played import Collected, draw, play_training
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.policies.scripted import RandomActions, Script
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.types import Completion, Request, Sampling, Spent, TreeShape

TASKS = draw(WORLD.tasks("L0", "train"), 12, seed=3)
FROM = origin(WORLD, "L0", "played", "somebody")


class Half:
    """The expert, except on every other task, where it looks around, and on some, where it refuses to go on."""

    def __init__(self, refuses: Sequence[str] = ()) -> None:
        self.expert, self.refuses, self.spent = WORLD.expert("sparse"), refuses, Spent()
        self.poor = {task.id for task in TASKS[::2]}

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        answers = await self.expert.sample(requests)
        for request, answer in zip(requests, answers, strict=True):
            if request.task.id in self.refuses:
                answer[:] = [Completion("", refused="not today")]
            elif request.task.id in self.poor:
                answer[:] = [Completion("<think>Hm.</think><action>look</action>")]
        return answers


def play(policy: Policy, prompt: Prompt = Prompt(), **settings: Any) -> Collected:
    growth = Growth(TreeShape(horizon=30), Chains(), prompt, Sampling())
    return asyncio.run(play_training(InProcess(WORLD, policy), TASKS, growth, FROM, temperature=1.0, **settings))


def ids(some: Sequence[Demonstration]) -> list[str]:
    return [shown.tree.task.id for shown in some]


def test_wins_and_losses_are_kept_apart_and_what_broke_off_is_named():
    broken = [TASKS[1].id, TASKS[2].id]
    found = play(Half(broken), batch=5)
    assert ids(found.won) == [task.id for task in TASKS[1::2] if task.id not in broken]
    assert ids(found.lost) == [task.id for task in TASKS[::2] if task.id not in broken]
    assert len(found.failures) == 2
    assert all("not today" in failure for failure in found.failures)
    assert found.episodes == 12
    assert all(shown.won for shown in found.won)
    assert all(len(shown.tree.nodes) == 30 for shown in found.lost)
    assert found.spent.env_steps == sum(len(shown.tree.nodes) for shown in [*found.won, *found.lost])
    assert {shown.origin for shown in found.won} == {FROM}


def test_playing_ends_with_the_count():
    # The odd ones are won: three are played, then two, then one.
    found = play(Half(), count=3)
    assert ids(found.won) == [task.id for task in TASKS[1:6:2]]
    assert ids(found.lost) == [task.id for task in TASKS[0:5:2]]


def test_samples_differ_and_the_same_call_plays_the_same():
    found, again = (play(RandomActions(), samples=2, batch=7) for _ in range(2))
    assert found.lost == again.lost
    first, second = found.lost[:12], found.lost[12:]
    assert sorted(ids(first)) == sorted(ids(second))
    assert all(a.tree.nodes != b.tree.nodes for a, b in zip(first, second, strict=True))


def test_malformed_and_refused_steps_are_shown_and_not_learnt():
    found = play(Script(["look", "<think>what now", "go to the moon 1", "look"]), batch=12)
    assert all(shown.slips == {1, 2} for shown in found.lost)


def test_a_batch_that_breaks_off_whole_is_named_and_one_where_all_do_is_an_error():
    found = play(Half([task.id for task in TASKS[:4]]), batch=4)
    assert (found.episodes, len(found.failures)) == (12, 4)
    with pytest.raises(EnvironmentFailure, match=r"all of 12 episodes broke off.*not today"):
        play(Half([task.id for task in TASKS]), batch=4)


@pytest.mark.parametrize("style", ["react", "plain"])
def test_answers_without_tags_are_not_demonstrated(style):
    with pytest.raises(UsageError, match=f"prompt.instructions is {style}"):
        play(Half(), Prompt(instructions=style))
