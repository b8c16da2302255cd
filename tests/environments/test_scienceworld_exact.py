"""ScienceWorld against recordings of the original engine; forks against replay and an uninterrupted run, on every task."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from spark_rl.environments.scienceworld import ScienceWorld, ScienceWorldEnvironment
from spark_rl.environments.scienceworld.catalogue import VARIATIONS
from spark_rl.types import Observation

pytestmark = pytest.mark.slow

DEPTHS = (5, 15, 30)
STEPS = 34
LISTED = 6
"""Steps between two comparisons of the long list of actions."""


@pytest.fixture(scope="session")
def recordings(testdata: Path) -> list[dict]:
    with gzip.open(testdata / "vectors" / "scienceworld_gold.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_the_engines_own_stream_gives_its_recorded_texts(scienceworld, recordings):
    world = ScienceWorld(seeding="stock").unlimited()
    assert len(recordings) == 15
    for record in recordings:
        task = world.task(f"{record['task']}/{record['variation']}")
        assert (task.instruction, record["n_variations"]) == (record["description"], VARIATIONS[record["task"]])
        env = world.make()
        assert env.reset(task).text == record["initial"], task.id
        for number, step in enumerate(record["steps"]):
            answer = env.step(step["action"])
            said = (answer.text, round(100 * answer.progress["score"]), answer.success)
            assert said == (step["observation"], max(step["score"], 0), step["done"]), f"{task.id}, step {number}"


def test_recorded_solutions_reach_100_and_texts_that_no_chance_decides_are_equal(scienceworld, recordings):
    world = scienceworld.unlimited()
    for record in recordings:
        env = world.make()
        task = world.task(f"{record['task']}/{record['variation']}")
        texts = [env.reset(task).text]
        for step in record["steps"]:
            answer = env.step(step["action"])
            texts.append(answer.text)
        assert answer.success, task.id
        if record["seed_independent"]:
            assert texts == [record["initial"], *(step["observation"] for step in record["steps"])], task.id


def all_of(env: ScienceWorldEnvironment, observation: Observation, *, listed: bool) -> tuple:
    told = (observation.text, observation.reward, observation.done, observation.success, observation.admissible)
    here = env._here().shown
    told = (*told, dict(observation.progress), env.state_key(), here.ticks, here.score)
    return (*told, observation.actions, observation.shown) if listed else told


def record(world: ScienceWorld, task_id: str) -> tuple[list[str], list[tuple]]:
    """An uninterrupted random walk; now and then a word that the engine does not know."""
    rng, env = random.Random(task_id), world.make()
    observation = env.reset(world.task(task_id))
    actions, seen = [], []
    for step in range(STEPS):
        actions.append("dance" if rng.random() < 0.05 else rng.choice(observation.actions))
        observation = env.step(actions[-1])
        seen.append(all_of(env, observation, listed=step % LISTED == 0))
    return actions, seen


def go_on(env: ScienceWorldEnvironment, actions: list[str], start: int) -> list[tuple]:
    return [
        all_of(env, env.step(action), listed=step % LISTED == 0) for step, action in enumerate(actions[start:], start=start)
    ]


def test_fork_replay_and_uninterrupted_run_are_one_on_all_tasks_interleaved(scienceworld):
    world = replace(scienceworld, heap=1024).unlimited()  # a process of its own
    ids = [f"{kind}/{count // 3}" for kind, count in VARIATIONS.items()]
    assert len(ids) == 30
    walks = {task_id: record(world, task_id) for task_id in ids}
    parents = {task_id: world.make() for task_id in ids}
    for task_id, env in parents.items():
        env.reset(world.task(task_id))
    forks: list[tuple[str, int, ScienceWorldEnvironment]] = []
    rng = random.Random(0)
    for step in range(STEPS):
        for task_id, env in parents.items():
            actions, seen = walks[task_id]
            if step in DEPTHS:
                forks.append((task_id, step, env.fork()))
                sibling = env.fork()
                for _ in range(3):  # something else is done in a sibling
                    sibling.step(rng.choice(actions))
                sibling.step("wait")
                sibling.fork().step("wait")
            told = all_of(env, env.step(actions[step]), listed=step % LISTED == 0)
            assert told == seen[step], f"{task_id} interleaved, step {step}"
    for task_id, depth, env in forks:
        actions, seen = walks[task_id]
        assert go_on(env, actions, depth) == seen[depth:], f"{task_id} forked at {depth}"
        env.close()
    for task_id, (actions, seen) in walks.items():
        env = world.make()
        env.reset(world.task(task_id))
        assert go_on(env, actions, 0) == seen, f"{task_id} replayed"
    assert world.lost() == 0
