"""ALFWorld against recordings of the original engine, forks against replay, splits, and what a user can get wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from spark_rl.contracts import Environment, World
from spark_rl.environments.alfworld import HELD_OUT, KINDS, Alfworld, environment, memo
from spark_rl.environments.alfworld import engine as engines
from spark_rl.environments.alfworld.engine import Engine
from spark_rl.environments.alfworld.games import FolderGames
from spark_rl.environments.alfworld.walkthrough import explain
from spark_rl.environments.check import check_world
from spark_rl.environments.registry import find_task, load_world
from spark_rl.errors import EnvironmentFailure, MissingExtra, PolicyFailure, ReplayMismatch, SparkError, UsageError
from spark_rl.prompting.parsing import parse
from spark_rl.types import Request, Task

EPISODES = 20
ONE_OF_EACH_KIND = (0, 1, 2, 3, 6, 8)
DESK = "valid_unseen/look_at_obj_in_light-AlarmClock-None-DeskLamp-308/trial_T20190908_222917_366542"


@pytest.fixture
def files(alfworld_games: Path) -> Alfworld:
    """The games as files: lists tasks, needs no engine."""
    return Alfworld(data=str(alfworld_games))


@pytest.fixture
def world(files: Alfworld) -> Alfworld:
    """The games with the engine."""
    pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")
    return files


@pytest.fixture
def empty_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_engines", {})


@pytest.fixture(scope="session")
def episodes(testdata: Path) -> list[dict]:
    with gzip.open(testdata / "vectors" / "alfworld_episodes.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def wander(env: Environment, actions: tuple[str, ...], seed: int, steps: int) -> list[tuple]:
    """What a seeded random walk sees, an unknown command now and then included."""
    rng, seen = random.Random(seed), []
    for _ in range(steps):
        action = "dance" if rng.random() < 0.1 else rng.choice(actions)
        observation = env.step(action)
        actions = observation.actions
        seen.append((action, observation, env.state_key()))
    return seen


def fresh(world: Alfworld, task: Task, actions: list[str]) -> tuple[str, tuple[str, ...], bool]:
    """Text, actions and verdict at the end of a replay in an engine of its own."""
    with engines.LOCK:
        engine = Engine()
        engine.load(world.source(), task.id)
        shown = [engine.step(action).shown for action in actions][-1]
    return shown.text, tuple(action for action in shown.actions if action != "help"), shown.won


def file(world: Alfworld, task_id: str) -> Path:
    """Where a game lies."""
    return FolderGames(Path(world.data) / "json_2.1.1").file(task_id)


def make_games(root: Path, names: list[str], goal: str = "put a mug in desk.", tail: str = '"solvable": true}') -> Path:
    """Files that have the head and the tail of games, enough to be listed."""
    for name in names:
        game = root / "json_2.1.1" / name / "game.tw-pddl"
        game.parent.mkdir(parents=True)
        game.write_text('{"grammar": "\\"rhs\\": \\"Your task is to: ' + goal + '\\"", ' + tail)
    return root


# -- the original engine's answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index", [pytest.param(i, marks=() if i in ONE_OF_EACH_KIND else pytest.mark.slow) for i in range(EPISODES)]
)
def test_answers_equal_the_original_engine(world: Alfworld, episodes: list[dict], index: int) -> None:
    episode = episodes[index]
    task = world.task(episode["game"].removesuffix("/game.tw-pddl"))
    assert task.kind == episode["task_type"]
    env = world.make()
    for walk in ("walkthrough", "random_walk"):
        observation, before = env.reset(task), episode["initial"]
        assert observation.text == before["feedback"]
        assert observation.text.endswith(f"Your task is to: {task.instruction}")
        for step in episode[walk]:
            observation = env.step(step["action"])
            assert observation.text == step["feedback"]
            assert sorted([*observation.actions, "help"]) == step["admissible"]
            assert (observation.success, observation.done, observation.reward) == (step["won"], step["won"], step["won"])
            assert observation.admissible == (step["action"] in before["admissible"])
            before = step
    assert episode["walkthrough"][-1]["won"]


@pytest.mark.slow
def test_the_stock_functions_answer_the_same(world: Alfworld, episodes: list[dict], empty_pool: None) -> None:
    episode = episodes[ONE_OF_EACH_KIND[0]]
    memo.uninstall()
    env = Alfworld(data=world.data, memoise=False).make()
    env.reset(world.task(episode["game"].removesuffix("/game.tw-pddl")))
    for step in episode["random_walk"]:
        assert env.step(step["action"]).text == step["feedback"]
    assert memo.install()


def test_other_versions_of_the_engine_are_left_alone(world: Alfworld, monkeypatch: pytest.MonkeyPatch) -> None:
    import textworld
    from textworld.envs.pddl import textgen

    memo.uninstall()
    stock = textgen.copy_context
    monkeypatch.setattr(textworld, "__version__", "1.8.0")
    assert not memo.install()
    assert textgen.copy_context is stock


def test_it_is_an_environment_and_a_world(world: Alfworld) -> None:
    assert isinstance(load_world("alfworld", data=world.data), World)
    assert isinstance(world.make(), Environment)
    assert find_task(world, DESK).instruction == "examine the alarmclock with the desklamp."


def test_the_contract_holds(world: Alfworld) -> None:
    report = check_world(world, tasks=2, steps=10)
    assert report.passed, str(report)


def test_loading_disturbs_nobody(
    world: Alfworld, empty_pool: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["spark-rl", "train"])
    stdout = sys.stdout
    world.make().reset(world.task(DESK))
    assert sys.argv == ["spark-rl", "train"]
    assert sys.stdout is stdout
    assert capfd.readouterr() == ("", "")


def test_state_keys_hold_verb_text_and_inventory(world: Alfworld) -> None:
    env = world.make()
    first = env.reset(world.task(DESK))
    assert env.state_key() == f"\n{first.text}\n"
    env.step("go to desk 2")
    arrived = env.state_key()
    assert arrived == "go\nYou arrive at desk 2. On the desk 2, you see a alarmclock 1.\n"
    env.step(" take alarmclock 1 from desk 2 ")
    assert env.state_key() == "take\nYou pick up the alarmclock 1 from the desk 2.\nalarmclock 1"
    env.step("put alarmclock 1 in/on desk 2")
    assert env.state_key() == "invalid\nNothing happens.\nalarmclock 1"
    env.step("move alarmclock 1 to desk 2")
    env.step("go to bed 1")
    env.step("go to desk 2")
    assert env.state_key() == arrived  # neither history nor time


def test_help_is_accepted_but_not_listed(world: Alfworld) -> None:
    env = world.make()
    assert "help" not in env.reset(world.task(DESK)).actions
    assert env.step("help").admissible


def test_refusals_are_the_engine_s_own_without_asking_it(world: Alfworld, episodes: list[dict]) -> None:
    task_id = episodes[ONE_OF_EACH_KIND[0]]["game"].removesuffix("/game.tw-pddl")
    pool = engines.Engines(world.source())
    place = pool.start(task_id)
    with engines.LOCK:
        alone = Engine()
        alone.load(world.source(), task_id)
        for step in episodes[ONE_OF_EACH_KIND[0]]["walkthrough"]:
            for odd in ("dance", "", "go to fridge 99", step["action"].upper()):
                place = pool.step(place, odd)
                assert place.shown == alone.step(odd).shown
            place = pool.step(place, step["action"])
            assert place.shown == alone.step(step["action"]).shown
        place = pool.step(place, "dance")
        assert place.shown == alone.step("dance").shown
    assert place.shown.won


# -- forks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 5, 15])
def test_forks_equal_replay_while_siblings_run(world: Alfworld, depth: int) -> None:
    task = world.tasks("L2", "test")[depth]
    trunk = world.make()
    assert trunk.fork_cost == "cheap"
    observation = trunk.reset(task)
    prefix = wander(trunk, observation.actions, seed=depth, steps=depth)
    actions = prefix[-1][1].actions
    left, right = trunk.fork(), trunk.fork()
    alone = wander(trunk.fork(), actions, seed=1, steps=6)
    mixed: list[tuple] = []
    for action, _, _ in alone:  # left repeats the walk while its siblings go elsewhere
        wander(right, actions, seed=2, steps=1)
        mixed.append((action, left.step(action), left.state_key()))
        trunk.step("look")
    assert mixed == alone
    last = mixed[-1][1]
    path = [action for action, _, _ in prefix + mixed]
    assert fresh(world, task, path) == (last.text, last.actions, last.success)


@pytest.mark.usefixtures("empty_pool")
def test_games_that_take_turns_on_one_engine_are_rebuilt(world: Alfworld) -> None:
    tasks = world.tasks("L1", "test")[::100]
    apart = []
    for task in tasks:
        env = world.make()
        apart.append(wander(env, env.reset(task).actions, seed=3, steps=4))
    engines._engines.clear()
    narrow = Alfworld(data=world.data, engines=1)
    envs = [narrow.make() for _ in tasks]
    for env, task in zip(envs, tasks, strict=True):
        env.reset(task)
    together: list[list[tuple]] = [[], []]
    for step in range(4):
        for game, env in enumerate(envs):
            action = apart[game][step][0]
            envs[game] = env.fork()
            together[game].append((action, envs[game].step(action), envs[game].state_key()))
    assert together == apart
    assert len(engines._engines) == 1


@pytest.mark.usefixtures("empty_pool")
def test_a_planner_without_a_registry_forks_by_replay(world: Alfworld, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.task(DESK)
    env = world.make()
    expected = wander(env, env.reset(task).actions, seed=4, steps=6)
    for module in (engines, environment):
        monkeypatch.setattr(module, "has_registry", lambda: False)
    engines._engines.clear()
    env = world.make()
    assert env.fork_cost == "replay"
    actions = env.reset(task).actions
    assert wander(env, actions, seed=4, steps=6) == expected
    other = world.make()
    other.reset(task)
    branch, seen = other.fork(), []
    for action, _, _ in expected:
        other.step("go to bed 1")
        seen.append((action, branch.step(action), branch.state_key()))
    assert seen == expected


@pytest.mark.usefixtures("empty_pool")
def test_a_game_changed_on_disk_is_noticed(world: Alfworld, tmp_path: Path) -> None:
    ours, other = (file(world, task.id) for task in world.tasks("L1", "test")[::100])
    first, second = (f"valid_unseen/pick_and_place_simple-A-None-B-1/trial_{name}" for name in "xy")
    copied = Alfworld(data=str(make_games(tmp_path, [first, second])), engines=1)
    shutil.copy(ours, file(copied, first))
    shutil.copy(other, file(copied, second))
    env = copied.make()
    env.reset(copied.task(first))
    env.step("look")
    copied.make().reset(copied.task(second))
    shutil.copy(other, file(copied, first))
    with pytest.raises(ReplayMismatch, match="was the game file changed"):
        env.step("look")


def test_threads_play_side_by_side(world: Alfworld) -> None:
    def play(task: Task, into: list) -> None:
        env = world.make()
        into += wander(env, env.reset(task).actions, seed=5, steps=5)

    tasks = world.tasks("L0", "test")[:60:20]
    alone: list[list] = [[] for _ in tasks]
    threaded: list[list] = [[] for _ in tasks]
    for task, into in zip(tasks, alone, strict=True):
        play(task, into)
    threads = [threading.Thread(target=play, args=pair) for pair in zip(tasks, threaded, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threaded == alone


# -- tasks and splits -----------------------------------------------------------------------------------------------


def test_test_splits_hold_the_known_numbers(files: Alfworld) -> None:
    seen, unseen, held_out = (files.tasks(level, "test") for level in ("L0", "L1", "L2"))
    assert (len(seen), len(unseen), len(held_out)) == (140, 134, 38)
    assert Counter(task.kind for task in held_out) == dict(zip(HELD_OUT, (21, 17), strict=True))
    assert Counter(task.kind for task in unseen) == dict(zip(KINDS, (24, 18, 31, 23, 21, 17), strict=True))
    assert len({task.id for task in (*seen, *unseen)}) == 274
    assert all(files.task(task.id) == task for task in held_out)
    assert [task.id for task in seen] == sorted(task.id for task in seen)


def test_training_games_are_split_once_and_for_all(tmp_path: Path) -> None:
    names = [f"train/{kind}-Mug-None-Desk-{room}/trial_{n}" for kind in KINDS for room in (1, 2) for n in "ab"]
    world = Alfworld(data=str(make_games(tmp_path, names)), dev_tasks=5)
    train, dev = world.tasks("L0", "train"), world.tasks("L0", "dev")
    assert (len(train), len(dev)) == (19, 5)
    assert sorted(task.id for task in (*train, *dev)) == sorted(names)
    assert world.tasks("L1", "train") == train
    assert {task.kind for task in world.tasks("L2", "train")} == set(KINDS) - set(HELD_OUT)
    assert len(world.tasks("L2", "train")) == 11
    assert Alfworld(data=world.data, dev_tasks=5, train_tasks=7).tasks("L0", "train") == train[:7]
    assert len({task.kind for task in train[:7]}) > 2  # a slice mixes the types
    assert train[0].instruction == "put a mug in desk."


@pytest.mark.slow
def test_the_whole_archive_has_the_known_numbers(testdata: Path, tmp_path: Path) -> None:
    listing = subprocess.run(
        ["tar", "--zstd", "-tf", testdata / "alfworld" / "games.tar.zst"], capture_output=True, text=True, check=True
    )
    names = re.findall(r"(train/.*)/game\.tw-pddl", listing.stdout)
    world = Alfworld(data=str(make_games(tmp_path, names)))
    assert [len(world.tasks(level, "train")) + len(world.tasks(level, "dev")) for level in ("L0", "L2")] == [3553, 2207]


def test_games_the_engine_cannot_play_are_left_out(tmp_path: Path) -> None:
    root = make_games(tmp_path, ["valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_a"])
    make_games(root, ["valid_seen/pick_and_place_simple-AppleSliced-None-Desk-1/trial_b"])
    make_games(root, ["valid_seen/pick_and_place_with_movable_recep-Mug-Pot-Desk-1/trial_c"])
    make_games(root, ["valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_d"], tail='"solvable": false}')
    world = Alfworld(data=str(root / "json_2.1.1"))  # the inner folder will do as well
    assert [task.id for task in world.tasks("L0", "test")] == ["valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_a"]
    with pytest.raises(UsageError, match="unsolvable"):
        world.task("valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_d")


# -- the expert -----------------------------------------------------------------------------------------------------


def test_the_expert_wins_and_its_answers_are_well_formed(world: Alfworld) -> None:
    expert, kinds = replace(world, solver="walkthrough").expert("dense"), set()
    for task in world.tasks("L1", "test")[::27]:
        env = world.make()
        observation, history = env.reset(task), ()
        while not observation.done:
            request = Request(task, (), observation, seeds=(0, 1), history=history)
            [[first, second]] = asyncio.run(expert.sample([request]))
            assert first == second
            parsed = parse(first.text)
            assert parsed.well_formed
            assert parsed.mode == "explore" or history  # nothing has been found before the first step
            observation, history = env.step(parsed.action), (*history, parsed.action)
            assert observation.admissible
        assert observation.success
        kinds.add(task.kind)
    assert len(kinds) >= 3


def test_reasons_follow_what_has_been_seen() -> None:
    plan = (
        "go to cabinet 1", "open cabinet 1", "take vase 2 from cabinet 1",
        "go to safe 1", "open safe 1", "move vase 2 to safe 1",
        "go to cabinet 1", "take vase 3 from cabinet 1",
        "go to shelf 1", "use desklamp 1",
        "go to bed 1", "take vase 1 from bed 1",
    )  # fmt: skip
    seen = [explain(plan, step, "You see a desklamp 11.") for step in range(len(plan))]
    assert [mode for mode, _ in seen] == ["explore"] * 2 + ["think"] * 6 + ["explore", "think", "explore", "think"]
    assert seen[0][1] == "I need a vase and have not seen where it is; I look at the cabinet 1."
    assert seen[1][1] == "The cabinet 1 is closed; a vase may be inside."
    assert seen[3][1] == "I have the vase 2, so I go to the safe 1."
    assert seen[6][1] == "I have seen the vase 3, so I go to the cabinet 1."
    assert seen[10][1] == "I need another vase and have not seen where it is; I look at the bed 1."
    sparse = [explain(plan, step, "", "sparse") for step in range(len(plan))]
    assert [step for step, (mode, _) in enumerate(sparse) if mode == "explore"] == [8, 10]
    assert [reason for _, reason in sparse] == [reason for _, reason in seen]
    assert explain(plan, 8, "On the bed 1, you see a desklamp 1.")[0] == "think"
    assert explain(("inventory",), 0, "") == ("think", "This comes next.")


def test_the_expert_says_when_it_was_not_followed(files: Alfworld) -> None:
    task = files.task(DESK)
    request = Request(task, (), None, seeds=(0,), history=("look",))  # pyright: ignore[reportArgumentType]
    with pytest.raises(PolicyFailure, match=r"does not continue from \['look'\]"):
        asyncio.run(replace(files, solver="walkthrough").expert().sample([request]))


# -- what a user can get wrong --------------------------------------------------------------------------------------


def sentence(error: pytest.ExceptionInfo[SparkError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_no_games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"set ALFWORLD_DATA or --env\.data") as error:
        Alfworld().tasks("L0", "test")
    assert sentence(error)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=f"no ALFWorld games in {tmp_path}"):
        Alfworld().tasks("L0", "test")
    make_games(tmp_path, ["valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_a"])
    assert len(Alfworld().tasks("L0", "test")) == 1
    with pytest.raises(UsageError, match=r"json_2\.1\.1/train: unpack the archive"):
        Alfworld().tasks("L0", "train")


@pytest.mark.parametrize("task_id", ["", "valid_seen/x/y", "../valid_seen/x", "valid_seen/../..", "/etc/passwd/x"])
def test_unknown_task(files: Alfworld, task_id: str) -> None:
    with pytest.raises(UsageError, match="alfworld has no task"):
        files.task(task_id)


def test_wrong_values(files: Alfworld) -> None:
    with pytest.raises(UsageError, match='unknown level "L3"'):
        files.tasks("L3", "test")
    with pytest.raises(UsageError, match='unknown split "valid"'):
        files.tasks("L0", "valid")
    with pytest.raises(UsageError, match="engines is 0; give 1 or more"):
        Alfworld(engines=0)


def test_missing_extra(files: Alfworld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textworld.envs", None)
    with pytest.raises(MissingExtra, match=r'pip install "spark-rl\[alfworld\]"'):
        files.make()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"pddl_problem"', '"problem"'),
        lambda text: text.replace("(define (problem", "(define ((problem"),
        lambda text: text.replace("(:goal", "(:gaol"),
    ],
    ids=["truncated", "key missing", "unbalanced", "unknown section"],
)
@pytest.mark.usefixtures("empty_pool")
def test_corrupt_game(world: Alfworld, tmp_path: Path, spoil) -> None:
    task_id = "valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_a"
    spoilt = Alfworld(data=str(make_games(tmp_path, [task_id])), engines=1)
    file(spoilt, task_id).write_text(spoil(file(world, DESK).read_text()))
    env = spoilt.make()
    for _ in range(2):  # the failure leaves nothing behind that a second try could mistake for a game
        with pytest.raises(EnvironmentFailure, match=r"cannot be (read|loaded)") as error:
            env.reset(spoilt.task(task_id))
        assert sentence(error)
    shutil.copy(file(world, DESK), file(spoilt, task_id))
    assert env.reset(spoilt.task(task_id)).actions
    assert len(engines._engines) == 1


def test_a_file_that_is_no_game(tmp_path: Path) -> None:
    root = make_games(tmp_path, ["valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_a"])
    (root / "json_2.1.1/valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_a/game.tw-pddl").write_text("")
    with pytest.raises(EnvironmentFailure, match="names no task"):
        Alfworld(data=str(root)).tasks("L0", "test")


def test_a_step_needs_a_task(world: Alfworld) -> None:
    env = world.make()
    for use in (lambda: env.step("look"), env.state_key):
        with pytest.raises(EnvironmentFailure, match="call reset"):
            use()
    env.reset(world.task(DESK))
    env.close()
    env.close()
    with pytest.raises(EnvironmentFailure, match="call reset"):
        env.step("look")
