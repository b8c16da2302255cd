"""Evaluation: every task once, the right denominators, and the same trajectories as a plain loop over the environment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import pytest
from tiny import RECIPE, WORLD, finished
from trees import draw

from spark_rl.environments.base import World
from spark_rl.environments.household import Household
from spark_rl.environments.household.engine import Scene
from spark_rl.errors import EnvironmentFailure
from spark_rl.evaluate import averages, chains, evaluate, markdown, summary
from spark_rl.executor import InProcess
from spark_rl.growth import Growth, TreeShape
from spark_rl.metrics import wilson
from spark_rl.model import load_model, load_tokenizer
from spark_rl.policies.scripted import RandomActions
from spark_rl.prompting import parse
from spark_rl.rollout import grow_forest
from spark_rl.types import Forest, Node, Request, Spent, Task, Tree

TASKS = WORLD.tasks("L0", "train")[:7]


@dataclass
class Expert:
    """An executor without a model, which remembers what it was asked."""

    world: World = WORLD
    asked: list[list[str]] = field(default_factory=list)

    async def grow(self, tasks: Sequence[Task], growth: Growth, *, seed: int, iteration: int) -> Forest:
        self.asked.append([task.id for task in tasks])
        return await grow_forest(tasks, self.world, WORLD.expert(), growth, seed=seed, iteration=iteration)


@dataclass(frozen=True)
class Flaky(Household):
    """A household whose door is stuck for some tasks."""

    broken: frozenset[str] = frozenset()

    def _scene(self, task: Task) -> Scene:
        if task.id in self.broken:
            raise RuntimeError("the door is stuck")
        return super()._scene(task)


def flaky(tasks: Sequence[Task]) -> Expert:
    return Expert(Flaky(**vars(WORLD), broken=frozenset(task.id for task in tasks)))


def play(executor, tasks=TASKS, batch=64, growth=RECIPE.growth, **settings):
    return asyncio.run(evaluate(executor, tasks, growth, **({"temperature": 0.0, "seed": 1} | settings), batch=batch))


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
def test_every_task_is_played_exactly_once(batch):
    executor, done = Expert(), []
    result = play(executor, batch=batch, advance=done.append)
    assert [task for part in executor.asked for task in part] == [task.id for task in TASKS]
    assert max(map(len, executor.asked)) <= batch
    assert done == [min(n, 7) for n in range(batch, 7 + batch, batch)]
    assert result == play(Expert()), "the number of tasks played at once changes nothing"
    assert result["tasks"] == sum(kind["tasks"] for kind in result["kinds"].values()) == 7


def test_the_policy_s_own_way_of_forking_is_left_out():
    forests = []

    class Watching(Expert):
        async def grow(self, *arguments, **settings):
            forests.append(await super().grow(*arguments, **settings))
            return forests[-1]

    play(Watching())
    assert all(len(tree.leaves()) == 1 and not tree.forks for forest in forests for tree in forest)
    alone = chains(RECIPE.growth, 0.4)
    assert (alone.shape.budget, alone.shape.roots, alone.shape.horizon) == (1, 1, RECIPE.tree.horizon)
    assert (alone.sampling.temperature, alone.sampling.max_tokens) == (0.4, RECIPE.sampling.max_tokens)
    assert alone.prompt == RECIPE.prompt


def test_greedy_equals_a_plain_loop_over_the_environment():
    run, _ = finished()
    folder = run.checkpoints / "cold-start"
    executor = InProcess(load_model(folder), load_tokenizer(folder), WORLD, cache_gb=0.01)
    tasks = WORLD.tasks("L1", "test")
    trees = [by_hand(executor, task) for task in tasks]
    result = play(executor, tasks, batch=2)
    assert result["wins"] == sum(tree.nodes[-1].success for tree in trees)
    assert result["steps"] == fmean(len(tree.nodes) for tree in trees)
    assert result["tokens"] == fmean(sum(len(node.completion) for node in tree.nodes) for tree in trees)
    nodes = [node for tree in trees for node in tree.nodes]
    assert result["invalid_ratio"] == fmean(not (node.well_formed and node.admissible) for node in nodes)
    assert result["explore_ratio"] == fmean(node.mode == "explore" for node in nodes)
    assert run.evaluations()["before"]["L1"]["tokens"] == result["tokens"]


def by_hand(executor: InProcess, task: Task) -> Tree:
    """One greedy trajectory, a request a step, nothing kept in between."""
    environment = WORLD.make()
    observation = environment.reset(task)
    tree = Tree(task, observation.text)
    while len(tree.nodes) < RECIPE.tree.horizon and not observation.done:
        prompt = RECIPE.prompt.render(tree, len(tree.nodes) - 1, executor.encoder)
        request = Request(
            task, prompt.messages, observation, (0,), prompt.ids, max_tokens=RECIPE.sampling.max_tokens, temperature=0.0
        )
        ((completion,),) = asyncio.run(executor.policy.sample([request]))
        parsed, key = parse(completion.text), environment.state_key()
        observation = environment.step(parsed.action)
        tree.nodes.append(
            Node(
                len(tree.nodes) - 1, (0,) * (len(tree.nodes) + 1), prompt.ids or (), completion.ids or (), (),
                completion.text, parsed.mode, parsed.reasoning, parsed.action, parsed.well_formed, observation.admissible,
                key, observation.text, (), observation.reward, observation.done, observation.success,
            )
        )  # fmt: skip
    return tree


@pytest.mark.parametrize("batch", [64, 3, 1])
def test_a_task_whose_environment_fails_is_not_solved_and_stays_in_the_denominator(batch):
    """Even where a whole batch fails."""
    growth = replace(RECIPE.growth, shape=TreeShape(horizon=40))
    result = play(flaky(TASKS[-2:]), batch=batch, growth=growth)
    assert (result["wins"], result["tasks"], result["failed"]) == (5, 7, 2)
    assert result["success"] == 5 / 7
    assert (result["low"], result["high"]) == wilson(5, 7)
    assert result["kinds"] == {"place": {"wins": 5, "tasks": 7}}
    assert all("the door is stuck" in failure for failure in result["failures"])


@pytest.mark.parametrize("batch", [64, 3])
def test_an_environment_that_always_fails_is_an_error_and_no_result(batch):
    with pytest.raises(EnvironmentFailure, match="the door is stuck"):
        play(flaky(TASKS), batch=batch)


def test_the_seed_decides_what_is_sampled():
    class Chance(Expert):
        async def grow(self, tasks, growth, *, seed, iteration):
            return await grow_forest(tasks, WORLD, RandomActions(), growth, seed=seed, iteration=iteration)

    assert play(Chance(), batch=2) == play(Chance())
    results = [play(Chance(), seed=seed) for seed in range(4)]
    assert any(result != results[0] for result in results)


def test_a_summary_by_hand():
    """One tree won after two steps, one lost after three, one failed."""
    won, lost = draw([-1, 0], {1: 1.0}), draw([-1, 0, 1], {2: 0.0})
    for node, key in zip(lost.nodes, "aba", strict=True):
        node.state_key = key
    lost.nodes[1].mode = "explore"
    tasks = [Task("drawn", f"drawn/{i}", "", kind) for i, kind in enumerate(("find", "find", "bring"))]
    won.task, lost.task = tasks[0], tasks[2]
    won.nodes[-1].progress, lost.nodes[-1].progress = {"score": 1.0}, {"score": 0.25}
    result = summary(tasks, [won, lost], Spent(generated=60), ["drawn/1: no"])
    assert (result["wins"], result["tasks"], result["success"], result["failed"]) == (1, 3, 1 / 3, 1)
    assert (result["steps"], result["steps_won"], result["score"], result["tokens"]) == (2.5, 2.0, 1 / 3, 20.0)
    assert result["explore_ratio"] == 1 / 5
    assert result["repetitive_ratio"] == 2 / 5  # the second step of the won one, and the third of the lost one
    assert result["kinds"] == {"bring": {"wins": 0, "tasks": 1}, "find": {"wins": 1, "tasks": 2}}
    # Over tasks (1 + 0 + 0.25) / 3; over types the mean of 1 / 2 and 0.25.
    assert result["averages"] == {
        "success": {"tasks": 1 / 3, "types": 1 / 4},
        "score": {"tasks": 1.25 / 3, "types": 0.375},
    }
    assert averages({"L1": result}).splitlines()[2:] == [
        "| success, over tasks | 0.333 |",
        "| success, over types | 0.250 |",
        "| score, over tasks | 0.417 |",
        "| score, over types | 0.375 |",
    ]
    head, _, row = markdown({"L1": result}).splitlines()
    assert head.count("|") == row.count("|")
    assert row.startswith("| L1 | 0.333 | 0.061 to 0.792 | 1/3 | 0.333 | 2.5 |")


def test_no_tasks_are_no_success():
    result = play(Expert(), tasks=[])
    assert (result["success"], result["tasks"], result["low"], result["high"]) == (0.0, 0, 0.0, 1.0)
    assert averages({"L0": result}) == averages({"L0": summary(TASKS[:1], [], Spent(), [])}) == ""
