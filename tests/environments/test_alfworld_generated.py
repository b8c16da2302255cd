"""Generated ALFWorld games: solvable, reproducible, apart by split, and played alike by the stock and the fast engine."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.environments.alfworld import HELD_OUT, KINDS, Alfworld, generated, memo
from spark_rl.environments.alfworld.engine import LOCK, Engine, Shown
from spark_rl.environments.alfworld.furnishing import LAMP, LAMP_PLACES, ROOMS, SCENES, furnish, room, rules
from spark_rl.environments.alfworld.games import Games
from spark_rl.environments.alfworld.generated import FEWEST, MOST, SIZES, GeneratedGames
from spark_rl.environments.check import check_world
from spark_rl.errors import EnvironmentFailure, MissingExtra, UsageError
from spark_rl.types import Task

pytest.importorskip("alfworld", reason="the tables of ALFWorld are in the extra alfworld")
pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")

OTHER_PROCESS = """
import hashlib, os, sys
from spark_rl.environments.alfworld.generated import GeneratedGames
games = GeneratedGames(12)
digest = hashlib.sha256()
for split in ("train", "valid_seen", "valid_unseen"):
    for task in games.split(split)[::60]:
        digest.update(repr((task, games.read(task.id))).encode())
assert "alfworld" not in sys.modules and "ALFWORLD_DATA" not in os.environ
print(digest.hexdigest())
"""


def of_kind(games: Games, kind: str, which: int = 0, split: str = "train") -> Task:
    return [task for task in games.split(split) if task.kind == kind][which]


def facts(problem: str) -> list[tuple[str, ...]]:
    return [tuple(fact.split()) for fact in re.findall(r"^\(([^():]+)\)$", problem, re.MULTILINE)]


def played(games: Games, task: Task, steps: int) -> list[Shown]:
    """What an engine of its own shows along the walkthrough, then on a seeded random walk."""
    with LOCK:
        engine = Engine()
        engine.load(games, task.id)
        shown = [engine.start().shown]
        shown += [engine.step(action).shown for action in games.read(task.id)["walkthrough"]]
        shown.append(engine.start().shown)
        rng = random.Random(task.id)
        for _ in range(steps):
            shown.append(engine.step("dance" if rng.random() < 0.1 else rng.choice(shown[-1].actions)).shown)
    return shown


def wins(games: GeneratedGames, task: Task) -> None:
    solution = games.read(task.id)["walkthrough"]
    with LOCK:
        engine = Engine()
        engine.load(games, task.id)
        shown = engine.start().shown
        assert shown.text.endswith(f"\n\nYour task is to: {task.instruction}")
        for action in solution:
            assert not shown.won
            assert action in shown.actions
            shown = engine.step(action).shown
        assert shown.won
        # The planner, asked at the start, sees a solution too; with many things it takes minutes.
        if games.objects < 10:
            engine.start()
            plan = engine._env._pddl_state.replan(engine._env._entity_infos)
            assert plan
            assert len(plan) <= len(solution) + 1


def test_put_is_move_where_it_is_accepted() -> None:
    world = Alfworld(games="generated", objects=FEWEST, accept_put=True)
    task = of_kind(world.source(), "pick_and_place_simple")
    solution = world.source().read(task.id)["walkthrough"]
    strict, lenient = Alfworld(games="generated", objects=FEWEST).make(), world.make()
    for env in (strict, lenient):
        env.reset(task)
        for action in solution[:-1]:
            assert env.step(action).admissible
    put = re.sub(r"move (.+) to (.+)", r"put \1 in/on \2", solution[-1])
    assert not strict.step(put).admissible
    assert lenient.step(put).success


# -- solvable --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objects", [FEWEST, *(pytest.param(objects, marks=pytest.mark.slow) for objects in (8, 40, MOST))])
def test_the_walkthrough_wins_and_the_planner_agrees(kind: str, objects: int) -> None:
    memo.install()
    games = GeneratedGames(objects)
    wins(games, of_kind(games, kind, which=objects))


@pytest.mark.parametrize("objects", [40, MOST])
def test_large_games_are_won(objects: int) -> None:
    memo.install()
    games = GeneratedGames(objects)
    wins(games, games.split("valid_unseen")[objects - 1])


@pytest.mark.slow
@pytest.mark.parametrize("split", SIZES)
def test_games_all_over_a_split_are_won(split: str) -> None:
    memo.install()
    for objects in (8, 24):
        games = GeneratedGames(objects)
        for task in games.split(split)[:: SIZES[split] // 12]:
            wins(games, task)


@settings(max_examples=150)
@given(number=st.integers(0, 119), split=st.sampled_from(list(SIZES)), objects=st.integers(FEWEST, MOST))
def test_everything_lies_where_it_may(number: int, split: str, objects: int) -> None:
    known, task = rules(), generated._draw(split, objects, number).task
    game = GeneratedGames(objects).read(task.id)
    _, target, _, destination, scene = task.id.split("/")[1].split("-")
    found = facts(game["pddl_problem"])
    two = {(fact, name): value for fact, name, value in (fact for fact in found if len(fact) == 3)}
    kind = {
        name: value.removesuffix("Type") for (fact, name), value in two.items() if fact in ("objectType", "receptacleType")
    }
    where = {name: host for (fact, name), host in two.items() if fact == "inReceptacle"}
    assert len(where) == objects
    assert len(where) == sum(fact[0] == "objectType" for fact in found)
    for thing, host in where.items():
        assert kind[thing] in room(int(scene)).lying
        assert kind[host] in LAMP_PLACES if kind[thing] == LAMP else kind[thing] in known.holds[kind[host]]
        assert two["objectAtLocation", thing] == two["receptacleAtLocation", host]
    # Nothing is done yet, and enough is there to do it.
    targets = [host for thing, host in where.items() if kind[thing] == target]
    assert len(targets) > (task.kind == "pick_two_obj_and_place")
    assert all(kind[host] != destination for host in targets)
    places = {value for name, value in kind.items() if name not in where}
    if task.kind == "look_at_obj_in_light":
        assert destination == LAMP
        assert Counter(kind.values())[LAMP] == 1
    else:
        assert destination in places
        assert ("canContain", f"{destination}Type", f"{target}Type") in found
    standing = {("openable", name) for name in kind if kind[name] in known.openable and name not in where}
    assert standing == {fact for fact in found if fact[0] == "openable"}
    assert not any(fact[0] in ("opened", "isClean", "isHot", "isCool", "holds") for fact in found)
    assert task.instruction in game["grammar"]


@pytest.mark.parametrize("objects", [FEWEST, 40])
def test_things_have_the_numbers_that_the_solution_calls_them_by(objects: int) -> None:
    memo.install()
    games = GeneratedGames(objects)
    for task in games.split("valid_unseen")[::40]:
        scene = int(task.id.split("/")[1].rpartition("-")[2])
        with LOCK:
            engine = Engine()
            engine.load(games, task.id)
            text = engine.start().shown.text
        listed = re.findall(r"an? ([a-z]+ \d+)", text)
        assert sorted(listed) == sorted(receptacle.name for receptacle in furnish(scene, objects))


# -- the same everywhere, and apart ----------------------------------------------------------------------------------


def test_an_id_is_the_same_game_in_another_process() -> None:
    games, digest = GeneratedGames(12), hashlib.sha256()
    for split in SIZES:
        for task in games.split(split)[::60]:
            digest.update(repr((task, games.read(task.id))).encode())
            assert GeneratedGames(99).task(task.id) == task
            assert GeneratedGames(99).read(task.id) == games.read(task.id)
    env = {"PYTHONHASHSEED": "7", "PATH": "", "HOME": "/nonexistent"}
    other = subprocess.run([sys.executable, "-c", OTHER_PROCESS], env=env, capture_output=True, text=True, check=False)
    assert other.stdout.strip() == digest.hexdigest(), other.stderr


@pytest.mark.parametrize("objects", [FEWEST, 24])
def test_no_problem_is_in_two_splits(objects: int) -> None:
    games = GeneratedGames(objects)
    goals, scenes, contents = ({split: set() for split in SIZES} for _ in range(3))
    for split in SIZES:
        for task in games.split(split)[:: 1 if objects < 10 else 9]:
            goal = task.id.split("/")[1]
            goals[split].add(goal)
            scenes[split].add(int(goal.rpartition("-")[2]))
            contents[split].add(games.read(task.id)["pddl_problem"].partition("(:domain")[2])
    for one, other in (("train", "valid_seen"), ("train", "valid_unseen"), ("valid_seen", "valid_unseen")):
        assert not goals[one] & goals[other]
        assert not contents[one] & contents[other]
    assert scenes["valid_seen"] <= scenes["train"]
    assert not scenes["valid_unseen"] & scenes["train"]


def test_all_scenes_of_a_kind_of_room_differ() -> None:
    for objects in (FEWEST, 40, MOST):
        for one in ROOMS:
            layouts = [tuple(r.kind for r in furnish(scene, objects)) for scene in range(one.first, one.first + SCENES)]
            assert len(set(layouts)) == SCENES


def test_levels_have_their_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    world = Alfworld(games="generated", objects=8)
    splits = {
        (level, split): world.tasks(level, split) for level in ("L0", "L1", "L2") for split in ("train", "dev", "test")
    }
    assert {key: len(tasks) for key, tasks in splits.items()} == {
        ("L0", "train"): 3550, ("L0", "dev"): 50, ("L0", "test"): 120,
        ("L1", "train"): 3550, ("L1", "dev"): 50, ("L1", "test"): 120,
        ("L2", "train"): 2350, ("L2", "dev"): 50, ("L2", "test"): 40,
    }  # fmt: skip
    assert Counter(task.kind for task in splits["L1", "test"]) == dict.fromkeys(KINDS, 20)
    assert {task.kind for task in splits["L2", "test"]} == set(HELD_OUT)
    assert Counter(task.kind for task in (*splits["L0", "train"], *splits["L0", "dev"])) == dict.fromkeys(KINDS, 600)
    assert {task.kind for task in splits["L2", "train"]} == set(KINDS) - set(HELD_OUT)
    assert [task.id for task in splits["L0", "test"]] == sorted(task.id for task in splits["L0", "test"])
    assert len({task.kind for task in splits["L0", "train"][:12]}) > 3
    assert world.task(splits["L2", "test"][3].id) == splits["L2", "test"][3]


def test_fewer_games_are_a_fixed_choice_of_all_types() -> None:
    whole = Alfworld(games="generated", objects=8)
    for level, kinds in (("L0", set(KINDS)), ("L2", set(HELD_OUT))):
        few, more = (replace(whole, test_tasks=count).tasks(level, "test") for count in (20, 30))
        assert len(few) == 20
        assert {task.kind for task in few} == kinds
        assert set(few) < set(more) < set(whole.tasks(level, "test"))
        assert [task.id for task in few] == sorted(task.id for task in few)
    with pytest.raises(UsageError, match="test_tasks is -1; give 0 or more"):
        Alfworld(test_tasks=-1)


# -- the engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 10))])
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="textworld 1.7.0 runs on Python 3.13 only with our functions")
def test_the_stock_engine_answers_the_same(part: int) -> None:
    """Sixty games in ten parts, each with all types: text, list of actions, verdict and inventory."""
    for index, kind in enumerate(KINDS):
        games = GeneratedGames(8 if part == 0 else (12, 20, 40)[(part + index) % 3])
        task = of_kind(games, kind, which=part, split=list(SIZES)[index % 3])
        memo.uninstall()
        stock = played(games, task, steps=12)
        assert memo.install()
        assert played(games, task, steps=12) == stock
        assert any(shown.won for shown in stock)


def test_the_contract_holds() -> None:
    report = check_world(Alfworld(games="generated", objects=8), tasks=3, steps=8)
    assert report.passed, str(report)


# -- what a user can get wrong ---------------------------------------------------------------------------------------


def test_wrong_values() -> None:
    with pytest.raises(UsageError, match='unknown kind of ALFWorld games "generate"; did you mean "generated"'):
        Alfworld(games="generate")  # pyright: ignore[reportArgumentType]
    for objects in (FEWEST - 1, MOST + 1):
        with pytest.raises(UsageError, match=f"objects is {objects}; give {FEWEST} to {MOST}"):
            Alfworld(games="generated", objects=objects)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda task_id: task_id.replace("train/", "valid_seen/"),
        lambda task_id: task_id.replace("train/", "test/"),
        lambda task_id: task_id.replace("_G8_", "_G9_"),
        lambda task_id: task_id.replace("_G8_", "_G0_"),
        lambda task_id: task_id[:-6] + "999999",
        lambda task_id: task_id + "0",
        lambda _: "",
        lambda _: "train/pick_and_place_simple-Mug-None-Desk-1/trial_T2019",
    ],
)
def test_an_id_that_names_no_game(spoil) -> None:
    world = Alfworld(games="generated", objects=8)
    task_id = spoil(world.tasks("L0", "train")[0].id)
    with pytest.raises(UsageError, match="there is no generated game"):
        world.task(task_id)
    with pytest.raises(EnvironmentFailure, match="there is no generated game"):
        world.source().read(task_id)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "alfworld", None)
    rules.cache_clear()
    with pytest.raises(MissingExtra, match=r'pip install "spark-rl\[alfworld\]"'):
        rules()
