"""ScienceWorld: whose tasks are which, what counts as solved, what is refused, what a prompt shows, and who demonstrates."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from itertools import islice

import pytest

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Growth
from spark_rl.data.demonstrations import collect
from spark_rl.environments.check import check_world
from spark_rl.environments.registry import find_task, load_world
from spark_rl.environments.scienceworld import HELD_OUT, KINDS, ScienceWorld, ScienceWorldEnvironment
from spark_rl.environments.scienceworld.catalogue import VARIATIONS, mixed, variations
from spark_rl.environments.scienceworld.gold import Solution, Solutions, _plain, explain
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.policies.scripted import RandomActions
from spark_rl.prompting.parsing import parse
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_tree
from spark_rl.types import Observation, Request, Sampling, TreeShape

# -- levels, without Java -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "train", "test"), [("L0", 3322, 1661), ("L1", 3322, 1684), ("L2", 2242, 549)])
def test_levels_have_their_counts(level, train, test):
    assert sum(VARIATIONS.values()) == 7207
    parts = {split: variations(level, split, 50) for split in ("train", "dev", "test")}
    assert (len(parts["train"]) + len(parts["dev"]), len(parts["dev"]), len(parts["test"])) == (train, 50, test)
    assert len(variations(level, "train", 0)) == train
    ids = [task_id for some in parts.values() for task_id in some]
    assert len(set(ids)) == len(ids), "no variation is in two splits"


def test_held_out_types_occur_in_the_test_of_l2_only():
    def kinds(split):
        return {task_id.partition("/")[0] for task_id in variations("L2", split, 50)}

    assert kinds("test") == set(HELD_OUT)
    assert kinds("train") == set(KINDS) - set(HELD_OUT)
    assert not kinds("dev") & set(HELD_OUT)
    assert "use-thermometer" not in KINDS
    assert len(KINDS) == 29


def test_a_slice_takes_every_type_in_turn():
    slice_, rest = variations("L1", "dev", 58), variations("L1", "train", 58)
    assert set(Counter(task_id.partition("/")[0] for task_id in slice_).values()) == {2}
    assert slice_ + rest == variations("L1", "train", 0) == mixed(reversed(slice_ + rest))


@pytest.mark.parametrize(
    ("task_id", "sentence"),
    [
        ("boil", 'an id is a type and a number, such as "boil/3"'),
        ("boil/03", "an id is a type and a number"),
        ("boil/30", "boil has variations 0 to 29"),
        ("bake/0", 'unknown ScienceWorld task type "bake"'),
    ],
)
def test_wrong_ids_are_refused_without_java(task_id, sentence):
    with pytest.raises(UsageError, match=sentence):
        find_task(ScienceWorld(), task_id)


@pytest.mark.parametrize(
    "settings",
    [{"jvms": 0}, {"heap": 1}, {"timeout": 0}, {"ticks": -1}, {"kinds": ("bake",)}, {"simplifications": "easy,hard"}]
    + [{name: "other"} for name in ("success", "reward", "seeding")],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(UsageError, match=next(iter(settings)).removesuffix("s").replace("kind", "task type")):
        load_world("scienceworld", **settings)


# -- an episode -----------------------------------------------------------------------------------------------------


def start(world: ScienceWorld, task_id: str, *actions: str) -> tuple[ScienceWorldEnvironment, Observation]:
    env = world.make()
    observation = env.reset(world.task(task_id))
    for action in actions:
        observation = env.step(action)
    return env, observation


def all_of(env: ScienceWorldEnvironment, observation: Observation) -> tuple:
    """What can be told apart, the long list included."""
    told = (observation.text, observation.reward, observation.done, observation.success, observation.admissible)
    return (*told, dict(observation.progress), observation.actions, observation.shown, env.state_key())


def test_a_solution_wins_with_score_100(scienceworld):
    solution = Solutions(scienceworld.engines()).of("find-plant/0")
    env, observation = start(scienceworld, "find-plant/0", *solution.actions[:-1])
    assert not observation.success
    before = observation.progress
    observation = env.step(solution.actions[-1])
    assert (observation.success, observation.done, observation.reward) == (True, True, 1.0)
    assert observation.progress["score"] == 1.0 > before["score"] > 0
    assert observation.progress["subgoals"] > before["subgoals"] > 0


def test_waiting_wins_under_the_released_rule_only(scienceworld):
    solution = Solutions(scienceworld.engines()).of("find-plant/0")
    partly = solution.actions[: len(solution.actions) // 2]
    for rule, won in (("score", False), ("won", True)):
        world = ScienceWorld(success=rule)  # pyright: ignore[reportArgumentType]
        env, observation = start(world, "find-plant/0", *partly)
        assert 0 < observation.progress["score"] < 1
        waits = 0
        while not observation.done:
            assert observation.reward == 0
            observation, waits = env.step("wait"), waits + 1
        assert waits <= 10
        assert (observation.done, observation.success, observation.reward) == (True, won, float(won))


def test_no_limit_of_time_when_recordings_are_replayed(scienceworld):
    _, observation = start(scienceworld.unlimited(), "find-plant/0", *["wait"] * 12)
    assert not observation.done


def test_a_wrong_focus_ends_the_episode(scienceworld):
    _, observation = start(scienceworld, "find-plant/0", "focus on picture")
    assert (observation.done, observation.success, observation.progress["score"]) == (True, False, 0.0)


def test_gains_of_score_can_be_paid(scienceworld):
    solution = Solutions(scienceworld.engines()).of("find-plant/0")
    env = ScienceWorld(reward="score").make()
    at_start = env.reset(scienceworld.task("find-plant/0")).progress["score"]
    paid = [env.step(action).reward for action in solution.actions]
    assert sum(paid) == pytest.approx(1.0 - at_start)
    assert sum(reward > 0 for reward in paid) > 1


@pytest.mark.parametrize("seeding", ["step", "stock"])
def test_what_is_refused_and_what_is_asked_change_nothing(scienceworld, seeding):
    world = ScienceWorld(seeding=seeding)
    solution = Solutions(scienceworld.engines()).of("find-plant/0")
    quiet, disturbed = world.make(), world.make()
    quiet.reset(world.task("find-plant/0"))
    disturbed.reset(world.task("find-plant/0"))
    for action in solution.actions:
        for nonsense in ("", " ", "xyzzy", "go to the moon", "0", "ünïcödé \U0001f300"):
            refused = disturbed.step(nonsense)
            assert not refused.admissible
            assert disturbed.state_key().startswith("invalid\nNo known action matches that input.\n")
        assert disturbed.step("help").text.startswith("Possible actions: ")
        assert "go to OBJ" in disturbed.step("help").text
        assert disturbed.step("objects").admissible
        assert disturbed.step("Task").text == "Task description:\n" + world.task("find-plant/0").instruction
        assert len(refused.actions) > 100
        one, other = quiet.step(action), disturbed.step(action)
        assert (one.text, one.reward, one.done) == (other.text, other.reward, other.done)
        assert quiet.state_key() == disturbed.state_key()
    assert one.success


def test_a_question_is_answered_by_a_number_and_survives_nonsense(scienceworld):
    env, observation = start(scienceworld, "find-plant/0", "teleport to greenhouse", "focus on flower pot")
    assert observation.text.startswith("Ambiguous request")
    assert observation.admissible
    assert observation.actions[:2] == observation.shown[:2] == ("0", "1")
    assert "0:\tfocus on flower pot" in observation.text
    refused = env.step("dance")
    assert not refused.admissible
    assert "Enter a number from 0 to" in refused.text
    assert refused.actions == observation.actions
    twin = env.fork()
    assert twin.step("looking good").admissible is False
    dropped = twin.step("look around")
    assert dropped.admissible, "another action drops the question, as in the engine"
    assert len(dropped.actions) > 100
    answered = env.step(" 1 ")
    assert answered.admissible
    assert "focus on the" in answered.text


def test_every_listed_action_is_known(scienceworld):
    # Engine's own list names what is shut away (the sewer, bees in a hive), which its parser then refuses.
    env, observation = start(scienceworld, "grow-fruit/3", "teleport to greenhouse")
    assert not any("sewer" in action for action in observation.actions)
    for action in observation.actions[::40]:
        assert env.fork().step(action).admissible, action


def test_prompts_show_forms_and_what_is_in_sight(scienceworld):
    env, _ = start(scienceworld, "boil/0", "teleport to kitchen", "pick up thermometer")
    shown = env.step("look around").shown
    names = shown[0].removeprefix("OBJ is one of: ").split(", ")
    assert {"thermometer", "cupboard", "stove"} <= set(names)
    assert "go to OBJ" in shown
    assert "go OBJ" not in shown
    assert 20 < len(shown) < 30
    assert len("\n".join(shown)) < 1500
    growth = Growth(TreeShape(budget=2, roots=2, horizon=3), Chains(), Prompt(), Sampling())
    tree = asyncio.run(grow_tree(scienceworld.task("boil/0"), scienceworld, RandomActions(), growth, seed=1))
    assert tree.actions[0].startswith("OBJ is one of: ")
    assert {node.depth for node in tree.nodes} == {1, 2, 3}
    assert all(set(node.progress) == {"score", "subgoals"} for node in tree.nodes)


def test_forks_are_apart_and_pickles_go_on(scienceworld):
    env, _ = start(scienceworld, "boil/0", "teleport to kitchen")
    twin, stored = env.fork(), pickle.loads(pickle.dumps(env))
    actions = ["open cupboard", "pick up thermometer", "look around", "use thermometer on stove", "wait"]
    twin.step("close door to hallway")
    twin.step("pick up soap")
    expected = [all_of(env, env.step(action)) for action in actions]
    assert [all_of(stored, stored.step(action)) for action in actions] == expected
    twin = stored.fork()
    twin.close()
    twin.close()
    assert all_of(stored, stored.step("look around")) == all_of(env, env.step("look around"))


def test_lists_of_states_left_behind_are_still_right(scienceworld):
    env, before = start(scienceworld, "boil/0", "teleport to kitchen")
    fresh = start(scienceworld, "boil/0", "teleport to kitchen")[1].actions
    env.step("teleport to workshop")
    assert before.actions == fresh


@pytest.mark.slow
def test_it_keeps_the_contract(scienceworld):
    report = check_world(scienceworld, tasks=4, steps=20, seed=1)
    assert report.passed, str(report)


# -- the expert -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_demonstrations_are_short_balanced_and_of_training(scienceworld):
    world = ScienceWorld(kinds=("find-plant", "find-animal", "lifespan-longest-lived", "boil", "grow-fruit"))
    shown = asyncio.run(collect(world, 9, level="L0", horizon=12, prompt=Prompt()))
    kinds = Counter(one.tree.task.kind for one in shown)
    # None of boil and grow-fruit is that short.
    assert kinds == {"find-plant": 3, "find-animal": 3, "lifespan-longest-lived": 3}
    assert {one.tree.task.id for one in shown} <= set(variations("L0", "train", 0))
    for one in shown:
        assert one.tree.nodes[-1].success
        assert len(one.tree.nodes) <= 12
        assert not any(node.done for node in one.tree.nodes[:-1])
        assert all(node.admissible and node.well_formed for node in one.tree.nodes)


def test_levels_demonstrate_no_held_out_type(scienceworld):
    world = ScienceWorld(kinds=("find-animal", "find-plant", "lifespan-longest-lived", "grow-plant"))
    chosen = [task.kind for task in islice(world.demonstrable(world.tasks("L2", "train"), 12), 4)]
    assert Counter(chosen) == {"find-animal": 2, "lifespan-longest-lived": 2}
    assert not set(chosen) & set(HELD_OUT)


def test_solutions_are_kept_and_found_again_when_broken(scienceworld, cache):
    solutions = Solutions(ScienceWorld(simplifications="teleportAction,openDoors").engines())
    found = solutions.of("find-plant/3")
    assert found.actions
    assert len(found.seen) == len(found.actions) + 1
    file = solutions.file("find-plant/3")
    assert file.is_relative_to(cache)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    from spark_rl.environments.scienceworld import gold

    gold._solution.cache_clear()
    assert solutions.of("find-plant/3") == found
    assert file.read_bytes() == whole


def test_the_expert_goes_on_past_what_was_done_besides(scienceworld):
    task = scienceworld.task("find-plant/0")
    solution = Solutions(scienceworld.engines()).of(task.id).actions

    def ask(*history: str) -> str:
        request = Request(task, (), Observation(""), (0,), history=history)
        return parse(asyncio.run(scienceworld.expert("dense").sample([request]))[0][0].text).action

    for step, action in enumerate(solution):
        assert ask(*solution[:step]) == action
        assert ask(*solution[:step], "dance", *solution[:step][-1:]) == action
    assert ask(*solution) == "look around"


def test_a_task_without_a_solution_is_named(scienceworld, monkeypatch):
    monkeypatch.setattr(Solutions, "of", lambda *_: Solution((), ()))
    request = Request(scienceworld.task("find-plant/0"), (), Observation(""), (0,))
    with pytest.raises(PolicyFailure, match='solution of "find-plant/0" does not win'):
        asyncio.run(scienceworld.expert().sample([request]))


def test_a_beginner_does_what_comes_next_before_it_is_time(scienceworld):
    task = scienceworld.task("find-plant/0")
    solution = Solutions(scienceworld.engines()).of(task.id).actions
    focus = next(i for i, action in enumerate(solution) if action.startswith("focus on"))
    expert = scienceworld.expert()

    def mistake(step: int) -> str | None:
        made = expert.mistake(Request(task, (), Observation(""), (0,), history=solution[:step]))
        return parse(made.text).action if made else None

    assert focus > 0
    assert mistake(0) == solution[focus]
    assert mistake(focus) is None
    shown = asyncio.run(collect(ScienceWorld(kinds=("find-plant",)), 6, level="L0", horizon=20, prompt=Prompt(), slips=0.4))
    slips = [one.tree.nodes[i] for one in shown for i in one.slips]
    assert any(not node.admissible for node in slips)
    assert all(one.tree.nodes[-1].success for one in shown)


def test_solutions_are_told_plainly_where_that_wins_too(scienceworld):
    for task_id in ("find-animal/0", "find-plant/0", "find-non-living-thing/3"):
        solution = Solutions(scienceworld.engines()).of(task_id)
        raw = scienceworld.engines().gold(task_id)
        assert len(solution.actions) <= len(raw)
        assert not any("already open" in text for text in solution.seen)
        assert not any("in inventory" in action for action in solution.actions)
        _, last = start(scienceworld, task_id, *solution.actions)
        assert (last.success, last.progress["score"]) == (True, 1.0)


def test_a_plain_solution_calls_a_thing_what_the_answers_call_it():
    steps = {
        "open door to hall": "The door is already open.",
        "go to hall": "You move to the hall.",
        "focus on cloth sittable": "You focus on the couch.",
        "pick up cloth sittable": "You move the couch to the inventory.",
        "pick up flower pot 2": "You move the flower pot 2 to the inventory.",
        "move flower pot 2 containing soil in inventory to red box": "You move it.",
        "move blue cloth sittable in inventory to red box": "You move it.",
    }
    solution = Solution(tuple(steps), ("You are in a room.", *steps.values()))
    read = ("go to hall", "focus on couch", "pick up couch", "pick up flower pot 2", "move flower pot 2 to red box")
    assert _plain(solution, as_read=True) == (*read, "move couch to red box")
    assert _plain(solution, as_read=False)[1] == "focus on cloth sittable"
    assert _plain(solution, as_read=False)[-1] == "move cloth sittable to red box"


def test_a_search_lasts_until_the_thing_is_seen():
    actions = ["go to kitchen", "open fridge", "pick up milk", "go to hallway", "pour milk in inventory in red jug"]
    met = ["You are in the hallway.", "In it, you see a fridge.", "In the fridge: milk.", "milk", "milk"]
    decisions = [explain(actions, step, " ".join(met[: step + 1]), "pour the milk") for step in range(5)]
    assert [decision.search for decision in decisions] == [True, True, False, False, False]
    assert [decision.open_choice for decision in decisions] == [True, False, False, False, False]
    assert decisions[0].reason == "I need the milk. It may be in the kitchen."
    unnamed = explain(actions, 1, "a fridge", "Your task is to find a(n) edible thing. First, focus on the thing.")
    assert unnamed.reason == "I need an edible thing. It may be in or behind the fridge."
    assert explain(actions, 1, "a fridge", "do something").reason == "I need something. It may be in or behind the fridge."
    assert decisions[3].reason == "I have to be in the hallway, so I go there."
    assert decisions[2].reason == "The milk is here and I need it, so I take it."
    assert decisions[4].reason == "The milk belongs in the red jug now."
