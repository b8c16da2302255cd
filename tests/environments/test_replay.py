"""Replay is exact or an error; a trace is what `spark-rl env replay` writes."""

from __future__ import annotations

import itertools
import json

import pytest

from spark_rl.environments.household import Household
from spark_rl.environments.replay import replay, trace
from spark_rl.errors import ReplayMismatch, UsageError
from spark_rl.types import Observation, Task

WORLD = Household(train_tasks=6)
TASK = WORLD.task("L0/train/0")
ACTIONS = ["go to fridge 1", "open fridge 1", "sing", "go to microwave 1"]


def record() -> list[str]:
    environment = WORLD.make()
    return [environment.reset(TASK).text, *(environment.step(action).text for action in ACTIONS)]


class Clock:
    """An environment that is not deterministic: it shows how often it has been asked."""

    fork_cost = "replay"
    count = itertools.count()

    def reset(self, task: Task) -> Observation:
        return Observation("It is early.")

    def step(self, action: str) -> Observation:
        return Observation(f"It is {next(self.count)} o'clock.")


def test_a_replay_leads_to_the_same_state():
    environment, other = WORLD.make(), WORLD.make()
    other.reset(TASK)
    for action in ACTIONS:
        last = other.step(action)
    got = replay(environment, TASK, ACTIONS, record())
    assert (got.text, got.actions) == (last.text, last.actions)
    assert environment.state_key() == other.state_key()


def test_nothing_to_replay_is_a_reset():
    assert replay(WORLD.make(), TASK, [], record()[:1]).text == record()[0]


def test_a_difference_names_task_step_and_both_texts():
    texts = record()
    texts[2] = "You open fridge 1. In it you see an elephant 1."
    with pytest.raises(ReplayMismatch) as caught:
        replay(WORLD.make(), TASK, ACTIONS, texts)
    for part in ("L0/train/0", "step 2", '"open fridge 1"', "an elephant 1", record()[2][-20:]):
        assert part in str(caught.value)


def test_a_difference_far_down_a_long_text_is_shown():
    with pytest.raises(ReplayMismatch, match="elephant"):
        replay(WORLD.make(), TASK, [], [record()[0][:-1] + " and an elephant 1."])


def test_an_environment_that_is_not_deterministic_is_found_out():
    with pytest.raises(ReplayMismatch, match="deterministic"):
        replay(Clock(), TASK, ["wait", "wait"], ["It is early.", "It is 0 o'clock.", "It is 5 o'clock."])  # pyright: ignore


def test_texts_must_match_the_actions():
    with pytest.raises(UsageError, match="4 actions need 5 texts, not 4"):
        replay(WORLD.make(), TASK, ACTIONS, record()[:-1])


def test_a_trace_starts_with_the_reset_and_is_json():
    steps = trace(WORLD, TASK, ACTIONS)
    assert json.loads(json.dumps(steps)) == steps
    assert [step["action"] for step in steps] == [None, *ACTIONS]
    assert [step["observation"] for step in steps] == record()
    assert all(list(step) == ["action", "observation", "actions", "reward", "done", "success"] for step in steps)
    assert "go to fridge 1" in steps[0]["actions"]


def test_a_trace_ends_with_the_episode():
    world = Household(kinds=("place",), objects=8, train_tasks=1)
    task = world.task("L0/train/0")
    thing, target = (f"{task.data[name]} 1" for name in ("object", "target"))
    scene = world._scene(task)
    place = scene.house.names[scene.contents.places[scene.contents.index[thing]]]
    actions = [f"go to {place}", f"open {place}", f"take {thing} from {place}", f"go to {target}", f"open {target}"]
    steps = trace(world, task, [*actions, f"move {thing} to {target}", "look", "look"])
    assert [step["success"] for step in steps] == [False] * 6 + [True]
    assert (steps[-1]["reward"], steps[-1]["done"], steps[-1]["actions"]) == (1.0, True, [])
