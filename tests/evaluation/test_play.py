"""Evaluation: every task once, the right denominators, and the same trajectories as a plain loop over the environment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import pytest
from tiny import RECIPE, WORLD, finished
from trees import draw

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.common.seeding import derive
from spark_rl.contracts import Growth, World
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.environments.household import Household
from spark_rl.environments.household.engine import Scene
from spark_rl.environments.registry import WORLDS, load_world
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.evaluation.episodes import Played, episode
from spark_rl.evaluation.lookahead import majority
from spark_rl.evaluation.play import evaluate
from spark_rl.evaluation.play import play as play_on
from spark_rl.evaluation.results import KindResult, Mean, conclude, summary, to_json
from spark_rl.evaluation.statistics import clustered, pass_at, wilson
from spark_rl.evaluation.tables import averages, branching, markdown, report
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.policies.scripted import RandomActions, Script, Slips
from spark_rl.prompting.parsing import parse
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.rollout.grow import grow_forest
from spark_rl.rollout.playing import chains
from spark_rl.types import Forest, Level, Node, Request, Spent, Task, Tree, TreeShape

TASKS = WORLD.tasks("L0", "train")[:7]


@dataclass
class Expert:
    """An executor without a model, which remembers what it was asked."""

    world: World = WORLD
    asked: list[list[str]] = field(default_factory=list)
    told: list[list[str]] = field(default_factory=list)
    """The tasks that it could get ready, in front of each batch."""

    def preload(self, tasks: Sequence[Task]) -> None:
        self.told.append([task.id for task in tasks])

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
    assert executor.told == executor.asked[1:]
    assert [task for part in executor.asked for task in part] == [task.id for task in TASKS]
    assert max(map(len, executor.asked)) <= batch
    assert done == [min(n, 7) for n in range(batch, 7 + batch, batch)]
    assert result == play(Expert()), "the number of tasks played at once changes nothing"
    assert result.tasks == sum(kind.tasks for kind in result.kinds.values()) == 7


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
    executor = InProcess(WORLD, LocalEngine(load_model(folder), load_tokenizer(folder), cache_bytes=10**7))
    tasks = WORLD.tasks("L1", "test")
    trees = [by_hand(executor, task) for task in tasks]
    result = play(executor, tasks, batch=2)
    assert result.wins == sum(tree.nodes[-1].success for tree in trees)
    assert result.steps == fmean(len(tree.nodes) for tree in trees)
    assert result.tokens == fmean(sum(len(node.completion) for node in tree.nodes) for tree in trees)
    nodes = [node for tree in trees for node in tree.nodes]
    assert result.invalid_ratio == fmean(not (node.well_formed and node.admissible) for node in nodes)
    assert result.explore_ratio == fmean(node.mode == "explore" for node in nodes)
    assert run.evaluations()["before"]["L1"].tokens == result.tokens


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
    assert (result.wins, result.tasks, result.failed) == (5, 7, 2)
    assert result.success == 5 / 7
    assert (result.low, result.high) == wilson(5, 7)
    assert result.kinds == {"place": KindResult(wins=5, tasks=7)}
    assert all("the door is stuck" in failure for failure in result.failures)


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
    assert (result.wins, result.tasks, result.success, result.failed) == (1, 3, 1 / 3, 1)
    assert (result.steps, result.steps_won, result.score, result.tokens) == (2.5, 2.0, 1 / 3, 20.0)
    assert result.explore_ratio == 1 / 5
    assert result.repetitive_ratio == 2 / 5  # the second step of the won one, and the third of the lost one
    assert result.kinds == {"bring": KindResult(wins=0, tasks=1), "find": KindResult(wins=1, tasks=2)}
    # Over tasks (1 + 0 + 0.25) / 3; over types the mean of 1 / 2 and 0.25.
    assert result.averages == {
        "success": Mean(tasks=1 / 3, types=1 / 4),
        "score": Mean(tasks=1.25 / 3, types=0.375),
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
    assert (result.success, result.tasks, result.low, result.high) == (0.0, 0, 0.0, 1.0)
    assert averages({"L0": result}) == averages({"L0": summary(TASKS[:1], [], Spent(), [])}) == ""


# -- several samples ------------------------------------------------------------------------------------------------


def clumsy() -> Slips:
    """Solves some tasks and not others, by the seeds of its samples."""
    return Slips(WORLD.expert(), 0.5)


class Clumsy(Expert):
    """An expert that often slips."""

    async def grow(self, tasks, growth, *, seed, iteration):
        self.asked.append([f"{task.id} {iteration}" for task in tasks])
        return await grow_forest(tasks, self.world, clumsy(), growth, seed=seed, iteration=iteration)


def test_every_task_is_played_as_often_as_was_asked():
    executor, done = Clumsy(), []
    result = play(executor, batch=4, samples=3, advance=done.append)
    wanted = [f"{task.id} {sample}" for sample in range(3) for task in TASKS]
    assert [name for part in executor.asked for name in part] == wanted
    assert done == [4, 7, 11, 14, 18, 21]
    assert (result.tasks, result.samples, result.episodes) == (7, 3, 21)
    assert result == play(Clumsy(), samples=3, batch=7)


def test_samples_agree_with_a_plain_loop_over_tasks_and_seeds():
    growth = replace(RECIPE.growth, shape=TreeShape(horizon=12))
    result = play(Clumsy(), growth=growth, samples=4, temperature=1.0)
    outcomes = []
    for task in TASKS:
        row = []
        for sample in range(4):
            environment, policy = WORLD.make(), clumsy()
            observation, path, score = environment.reset(task), (), 0.0
            history: tuple[str, ...] = ()
            while len(path) < 12 and not observation.done:
                path = (*path, 0)
                seeds = (derive(1, sample, task.id, 0, path),)
                request = Request(task, (), observation, seeds, children=((0, *path),), history=history)
                ((completion,),) = asyncio.run(policy.sample([request]))
                action = parse(completion.text).action
                observation, history = environment.step(action), (*history, action)
                score += observation.reward
            row.append((observation.success, len(path), score))
        outcomes.append(row)
    played = [one for row in outcomes for one in row]
    wins = [sum(success for success, _, _ in row) for row in outcomes]
    assert 0 < sum(wins) < 28
    assert result.wins == sum(wins)
    assert result.steps == fmean(steps for _, steps, _ in played)
    assert result.score == pytest.approx(fmean(score for _, _, score in played))
    assert result.env_steps == sum(steps for _, steps, _ in played) / 28
    assert (result.low, result.high) == clustered(wins, 4)
    settings = {"temperature": 1.0, "seed": 1, "samples": 4}
    found = conclude(TASKS, asyncio.run(play_on(Clumsy(), TASKS, growth, **settings)), samples=4, pass_at=(1, 2, 4))
    assert found.pass_at == {str(k): fmean(pass_at(k, 4, won) for won in wins) for k in (1, 2, 4)}
    assert found.pass_at["1"] == pytest.approx(result.success)
    assert found.pass_at["4"] == fmean(won > 0 for won in wins)
    assert markdown({"L0": found}).splitlines()[0].endswith("| Pass@1 | Pass@2 | Pass@4 |")


def test_a_world_that_names_a_task_twice_is_refused():
    with pytest.raises(UsageError, match="twice"):
        play(Clumsy(), tasks=[*TASKS, TASKS[0]])


# -- branching ------------------------------------------------------------------------------------------------------


def test_a_choice_by_hand():
    """The vote mends a loss of one task and spoils a win of another, the likeliest leaf wins both; a third task failed."""
    mended, spoilt = draw([-1, -1, -1], {1: 1.0, 2: 1.0}), draw([-1, -1, -1, 0], {3: 1.0})
    for tree, actions in ((mended, "abb"), (spoilt, "abbc")):
        tree.task = replace(tree.task, id=actions)
        for node, action in zip(tree.nodes, actions, strict=True):
            node.action = action
    mended.nodes[2].logprobs = (-0.1,)
    tasks = [mended.task, spoilt.task, replace(mended.task, id="failed")]
    played = Played()
    spent = Spent(generated=14, env_steps=7, replayed=2)
    played.add(tasks, 0, [episode(mended, 0, majority), episode(spoilt, 0, majority)], spent)
    result = conclude(tasks, played)
    assert (result.wins, result.episodes, result.steps) == (1, 3, 1.0)
    assert (result.tokens, result.env_steps) == (14 / 3, 3.0)
    assert to_json(result)["branching"] == {
        "leaves": 6 / 3,
        "by_majority": 1 / 3,
        "by_likelihood": 2 / 3,
        "alone": 1 / 3,
        "gained": 1,
        "lost": 1,
        "pass_at_leaves": 2 / 3,
        "alone_tokens": (2 + 4) / 3,
        "alone_steps": (1 + 2) / 3,
    }
    row = branching({"L0": result}).splitlines()[2]
    assert row == "| L0 | 0.333 | 0.333 | 1 | 1 | 0.333 | 0.667 | 0.667 | 2.0 | 5 | 2 | 3.0 | 1.0 |"
    assert branching({"L0": result}) in report({"L0": result})
    assert branching({"L0": summary(tasks, [], Spent(), [])}) == ""


def test_a_policy_without_logprobs_is_asked_by_majority_alone():
    tree = draw([-1, -1, 0], {1: 1.0}, logprobs=())
    played = Played()
    played.add([tree.task], 0, [episode(tree, 0, majority)], Spent())
    result = conclude([tree.task], played)
    assert result.branching is not None
    assert result.branching.by_rule == {"majority": 0}
    assert "by_likelihood" not in str(to_json(result)["branching"])
    assert "by likelihood" not in branching({"L0": result})


def test_what_is_alone_is_what_is_played_without_branching():
    growth = replace(RECIPE.growth, shape=TreeShape(budget=6, roots=2, horizon=12), branching=ExploreTag(3))
    chosen = play(Clumsy(), growth=growth, temperature=1.0, choose=majority)
    plain = play(Clumsy(), growth=growth, temperature=1.0)
    found = chosen.branching
    assert found is not None
    assert (found.alone, found.alone_steps) == (plain.success, plain.steps)
    assert 2 < found.leaves <= 6
    assert 0 < plain.success <= found.pass_at_leaves
    assert chosen.env_steps > plain.env_steps
    assert chosen.success <= found.pass_at_leaves
    assert chosen.success == pytest.approx(found.alone + (found.gained - found.lost) / 7)


# -- whole splits ---------------------------------------------------------------------------------------------------


def covers(world: World, level: Level, count: int, batch: int = 64) -> None:
    """Each test task of a level is played exactly once, by a script of one step."""
    executor = Looking(world)
    growth = replace(RECIPE.growth, shape=TreeShape(horizon=1), prompt=Prompt(list_actions=False))
    tasks = world.tasks(level, "test")
    result = play(executor, tasks=tasks, growth=growth, batch=batch)
    assert Counter(executor.played) == Counter({task.id: 1 for task in tasks})
    assert (result.tasks, result.episodes, result.failed, result.steps) == (count, count, 0, 1.0)
    assert sum(kind.tasks for kind in result.kinds.values()) == count


@dataclass
class Looking:
    """Looks once; remembers which trees it grew."""

    world: World
    played: list[str] = field(default_factory=list)

    async def grow(self, tasks, growth, *, seed, iteration):
        forest = await grow_forest(tasks, self.world, Script(["look"]), growth, seed=seed, iteration=iteration)
        self.played += [tree.task.id for tree in forest]
        return forest


@pytest.mark.parametrize("level", ["L0", "L1", "L2"])
def test_household_is_covered(level):
    covers(Household(), level, len(Household().tasks(level, "test")))


@pytest.mark.slow
@pytest.mark.parametrize(("level", "count"), [("L0", 140), ("L1", 134), ("L2", 38)])
def test_alfworld_is_covered(alfworld_games, level, count):
    pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")
    covers(load_world("alfworld", data=str(alfworld_games)), level, count, batch=16)


@pytest.mark.slow
def test_scienceworld_is_covered(scienceworld):
    covers(scienceworld, "L2", 549)


@dataclass
class OnPaper(Looking):
    """Answers with a step that was never taken."""

    async def grow(self, tasks, growth, *, seed, iteration):
        self.played += [task.id for task in tasks]
        trees = [replace(draw([-1]), task=task) for task in tasks]
        return Forest(trees, iteration, seed)


@pytest.mark.parametrize(
    ("name", "level", "count"),
    [("scienceworld", "L0", 1661), ("scienceworld", "L1", 1684), ("scienceworld", "L2", 549), ("webshop", "L0", 500)],
)
def test_the_ids_of_large_splits_are_covered(name, level, count):
    if name not in WORLDS:
        pytest.skip(f"there is no world {name} yet")
    world = load_world(name)
    executor = OnPaper(world)
    tasks = world.tasks(level, "test")
    result = play(executor, tasks=tasks, samples=2)
    assert Counter(executor.played) == Counter({task.id: 2 for task in tasks})
    assert len(tasks) == count
    assert (result.episodes, result.failed) == (2 * count, 0)
