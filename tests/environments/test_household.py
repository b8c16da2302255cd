"""The household world: hand-played scenes, properties of random walks, splits, and the expert."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.common.seeding import derive
from spark_rl.contracts import Environment, Policy, World
from spark_rl.environments.household import Expert, Household, HouseholdEnvironment
from spark_rl.environments.household.catalogue import (
    CONDITIONS,
    KINDS,
    LAMP,
    OBJECTS,
    ROOMS,
    TOOLS,
    Condition,
    likelihood,
    listed,
)
from spark_rl.environments.household.engine import NOTHING_HAPPENS, Scene, admissible, apply, start
from spark_rl.environments.household.houses import Contents, Goal, House, furnish, goals, houses
from spark_rl.environments.registry import find_task, load_world
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.prompting.parsing import parse
from spark_rl.types import Observation, Request, Task

SMALL: dict[str, Any] = {"train_tasks": 60, "dev_tasks": 24, "test_tasks": 36}
WORLDS = {
    "standard": Household(**SMALL),
    "hard": Household(preset="hard", **SMALL),
    "contents": Household(unseen="contents", contents=4, **SMALL),
    "pairs": Household(unseen_goals="pairs", **SMALL),
    "training types": Household(kinds=("place", "clean", "heat", "light"), **SMALL),
    "large": Household(receptacles=(20, 25), objects=30, houses=3, unseen_houses=2, **SMALL),
    "smallest": Household(receptacles=(8, 10), objects=8, houses=4, unseen_houses=2, **SMALL),
}
FRAGILE, STICKY, WET = CONDITIONS

HOUSE = House.of(
    [
        ("kitchen", ["fridge", "microwave", "sinkbasin", "countertop", "cabinet", "cabinet"]),
        ("bedroom", ["bed", "desk"]),
    ]
)


def scene(
    goal: str, things: list[tuple[str, str]], *, lamp: str = "desk 1", conditions: dict[str, Condition] | None = None
) -> Scene:
    """A scene by hand: (object, receptacle) pairs, the lamp on the desk; with conditions the hard preset."""
    names = ["desklamp 1", *(name for name, _ in things)]
    places = [HOUSE.index[place] for place in (lamp, *(place for _, place in things))]
    contents = Contents(
        tuple(names),
        tuple(name.split()[0] for name in names),
        {name: o for o, name in enumerate(names)},
        tuple(places),
        tuple((conditions or {}).get(name, WET) for name in names),
    )
    return Scene(HOUSE, contents, Goal.read(goal), hard=conditions is not None)


def task_of(scene: Scene) -> Task:
    return Task("household", "by hand", scene.goal.sentence, scene.goal.kind)


def play(scene: Scene, *actions: str) -> list[Observation]:
    environment = HouseholdEnvironment(lambda _: scene)
    return [environment.reset(task_of(scene)), *(environment.step(action) for action in actions)]


def texts(observations: list[Observation]) -> list[str]:
    return [observation.text for observation in observations]


def episode(world: World, task: Task, policy: Policy, horizon: int = 60) -> tuple[bool, list[str]]:
    environment = world.make()
    observation, history, said = environment.reset(task), [], []
    while not observation.done and len(history) < horizon:
        request = Request(task, (), observation, (derive(task.id, len(history)),), history=tuple(history))
        [[completion]] = asyncio.run(policy.sample([request]))
        said.append(completion.text)
        history.append(parse(completion.text).action)
        observation = environment.step(history[-1])
        assert observation.admissible, (task.id, history)
    return observation.success, said


# -- scenes by hand ---------------------------------------------------------------------------------------------------


def test_an_episode_reads_naturally():
    seen = play(
        scene("clean a mug and put it in a cabinet", [("mug 1", "fridge 1"), ("egg 1", "fridge 1")]),
        "look", "inventory", "go to fridge 1", "open fridge 1", "take mug 1 from fridge 1", "close fridge 1", "inventory",
        "go to sinkbasin 1", "clean mug 1 with sinkbasin 1", "inventory", "go to cabinet 2", "open cabinet 2",
        "move mug 1 to cabinet 2",
    )  # fmt: skip
    house = (
        "You are in a house. The kitchen has a fridge 1, a microwave 1, a sinkbasin 1, a countertop 1, a cabinet 1 and a "
        "cabinet 2. The bedroom has a bed 1 and a desk 1."
    )
    assert texts(seen) == [
        house,
        house,
        "You carry nothing.",
        "You are at fridge 1. It is closed.",
        "You open fridge 1. In it you see a mug 1 and an egg 1.",
        "You take mug 1 from fridge 1.",
        "You close fridge 1.",
        "You carry a mug 1.",
        "You are at sinkbasin 1. There is nothing in it.",
        "You clean mug 1 with sinkbasin 1.",
        "You carry a clean mug 1.",
        "You are at cabinet 2. It is closed.",
        "You open cabinet 2. There is nothing in it.",
        "You put mug 1 in cabinet 2.",
    ]
    assert [o.done for o in seen] == [o.success for o in seen] == [False] * 13 + [True]
    assert [o.reward for o in seen] == [0.0] * 13 + [1.0]
    assert all(o.admissible for o in seen)


def test_the_list_holds_what_applies_here_and_now():
    mug = scene("put a mug on a bed", [("mug 1", "countertop 1"), ("book 1", "desk 1")])
    at_start, at_counter, holding, at_sink, at_desk = (
        play(mug, "go to countertop 1")[0],
        play(mug, "go to countertop 1")[-1],
        play(mug, "go to countertop 1", "take mug 1 from countertop 1")[-1],
        play(mug, "go to countertop 1", "take mug 1 from countertop 1", "go to sinkbasin 1")[-1],
        play(mug, "go to desk 1")[-1],
    )
    ways = {f"go to {name}" for name in HOUSE.names}
    free = {"inventory", "look"}
    assert set(at_start.actions) == ways | free
    assert set(at_counter.actions) == ways - {"go to countertop 1"} | free | {"take mug 1 from countertop 1"}
    assert set(holding.actions) == ways - {"go to countertop 1"} | free | {"move mug 1 to countertop 1"}
    assert set(at_sink.actions) == ways - {"go to sinkbasin 1"} | free | {
        "move mug 1 to sinkbasin 1",
        "clean mug 1 with sinkbasin 1",
    }
    assert set(at_desk.actions) == ways - {"go to desk 1"} | free | {"take book 1 from desk 1", "use desklamp 1"}


@pytest.mark.parametrize(
    "action",
    ["", " ", "xyzzy", "go", "go to", "go to bed 9", "go to countertop 1", "go to bed 1 ", " go to bed 1", "Go to bed 1",
     "open countertop 1", "take egg 1 from fridge 1", "take egg 1 from countertop 1", "take mug 1 from fridge 1",
     "take mug 1", "take desklamp 1 from countertop 1", "move mug 1 to countertop 1", "clean mug 1 with sinkbasin 1",
     "use desklamp 1", "use", "look around", "inventory 1"],
)  # fmt: skip
def test_an_action_that_does_not_apply_changes_nothing(action):
    environment = HouseholdEnvironment(
        lambda _: scene("put a mug on a bed", [("mug 1", "countertop 1"), ("egg 1", "fridge 1")])
    )
    environment.reset(Task("household", "", ""))
    before = environment.step("go to countertop 1")
    key = environment.state_key()
    answer = environment.step(action)
    assert answer == replace(before, text=NOTHING_HAPPENS, listing=answer.listing, admissible=False)
    assert answer.actions == before.actions
    assert environment.state_key() == key


def test_heat_and_cold_undo_each_other_and_dirt_stays_off():
    egg = scene("heat an egg and put it on a desk", [("egg 1", "countertop 1")])
    take = ["go to countertop 1", "take egg 1 from countertop 1"]
    heat, cool = ["go to microwave 1", "heat egg 1 with microwave 1"], ["go to fridge 1", "cool egg 1 with fridge 1"]
    clean, put = ["go to sinkbasin 1", "clean egg 1 with sinkbasin 1"], ["go to desk 1", "move egg 1 to desk 1"]
    assert play(egg, *take, *clean, *cool, *heat, "inventory")[-1].text == "You carry a clean and hot egg 1."
    assert play(egg, *take, *heat, *clean, *put)[-1].success
    assert not play(egg, *take, *heat, *cool, *put)[-1].done
    assert not play(egg, *take, *put)[-1].done


def test_two_must_lie_together():
    mugs = scene("put a mug and another mug in a cabinet", [("mug 1", "countertop 1"), ("mug 2", "bed 1")])
    first = [
        "go to countertop 1",
        "take mug 1 from countertop 1",
        "go to cabinet 1",
        "open cabinet 1",
        "move mug 1 to cabinet 1",
    ]
    second = ["go to bed 1", "take mug 2 from bed 1"]
    together = play(mugs, *first, *second, "go to cabinet 1", "move mug 2 to cabinet 1")
    apart = play(mugs, *first, *second, "go to cabinet 2", "open cabinet 2", "move mug 2 to cabinet 2")
    assert [o.success for o in together] == [False] * 9 + [True]
    assert not apart[-1].success
    assert apart[-1].text == "You put mug 2 in cabinet 2."


@pytest.mark.parametrize(
    "last",
    [["go to bed 1", "take book 1 from bed 1", "go to desk 1", "use desklamp 1"],
     ["go to desk 1", "use desklamp 1", "go to bed 1", "take book 1 from bed 1", "go to desk 1"],
     ["go to desk 1", *["use desklamp 1"] * 2, "go to bed 1", "take book 1 from bed 1", "go to desk 1", "use desklamp 1"],
     ["go to desk 1", "use desklamp 1", "take book 2 from desk 1"]],
)  # fmt: skip
def test_one_looks_at_something_wherever_a_lit_lamp_is(last):
    seen = play(scene("look at a book under a desklamp", [("book 1", "bed 1"), ("book 2", "desk 1")]), *last)
    assert [o.success for o in seen] == [False] * (len(seen) - 1) + [True]


def test_after_the_end_nothing_happens():
    *_, last, after = play(
        scene("put a mug on a bed", [("mug 1", "desk 1")]),
        "go to desk 1", "take mug 1 from desk 1", "go to bed 1", "move mug 1 to bed 1", "take mug 1 from bed 1",
    )  # fmt: skip
    assert last.success
    assert (after.text, after.actions, after.reward) == (NOTHING_HAPPENS, (), 0.0)
    assert after.done
    assert after.success
    assert not after.admissible


def test_a_wrong_handling_ruins_in_silence():
    mug = scene("clean a mug and put it on a bed", [("mug 1", "desk 1")], conditions={"mug 1": FRAGILE})
    base = ["take mug 1 from desk 1", "clean mug 1 with sinkbasin 1", "move mug 1 to bed 1"]
    manners = [
        ("with hands", "with tongs", "with gloves"),
        ("on low", "on high", "on medium"),
        ("on cloth", "on paper", "on foil"),
    ]
    outcomes = {}
    for choice in itertools.product(*manners):
        take, clean, move = (f"{action} {manner}" for action, manner in zip(base, choice, strict=True))
        seen = play(mug, "go to desk 1", take, "go to sinkbasin 1", clean, "go to bed 1", move)
        assert seen[1].text == "You are at desk 1. On it you see a desklamp 1 and a fragile mug 1."
        assert {take, f"{base[0]} with hands"} <= set(seen[1].actions)
        assert not any("fragile" in o.text for o in seen[2:])
        assert all(o.admissible for o in seen)
        outcomes[choice] = (texts(seen), seen[-1].success)
    assert len({tuple(said) for said, _ in outcomes.values()}) == 1, "the words give nothing away"
    assert [choice for choice, (_, won) in outcomes.items() if won] == [("with hands", "on low", "on cloth")]


def test_handling_counts_under_the_lamp_too():
    book = scene("look at a book under a desklamp", [("book 1", "desk 1")], conditions={"book 1": STICKY})
    begin = ["go to desk 1", "take book 1 from desk 1 with tongs"]
    assert play(book, *begin, "use desklamp 1 on high")[-1].success
    assert not play(book, *begin, "use desklamp 1 on low")[-1].success
    # Once ruined, always ruined; and the plain actions of the standard preset are not known here.
    assert not play(book, *begin, "use desklamp 1 on low", "use desklamp 1 on high", "use desklamp 1 on high")[-1].success
    assert not play(book, "go to desk 1", "take book 1 from desk 1")[-1].admissible


def test_keys_tell_states_apart_by_what_one_sees_and_holds():
    environment = HouseholdEnvironment(lambda _: scene("put a mug on a bed", [("mug 1", "desk 1"), ("mug 2", "desk 1")]))
    environment.reset(Task("household", "", ""))

    def key(*actions: str) -> str:
        fork = environment.fork()
        for action in actions:
            fork.step(action)
        return fork.state_key()

    assert key("go to bed 1") == key("go to fridge 1", "go to bed 1"), "no history"
    assert key("go to bed 1") != key("go to bed 1", "look"), "kind of the last action"
    taken = [key("go to desk 1", f"take mug {i} from desk 1", "go to bed 1") for i in (1, 2)]
    assert taken[0] != taken[1]
    assert key("go to bed 1") not in taken


# -- properties -------------------------------------------------------------------------------------------------------


@st.composite
def states(draw):
    """A scene and a state that a random walk leads to."""
    world = WORLDS[draw(st.sampled_from(sorted(WORLDS)))]
    task = draw(st.sampled_from(world.tasks("L0", "train")))
    scene = world._scene(task)
    state = start(scene)
    for choice in draw(st.lists(st.floats(0, 1, exclude_max=True), max_size=25)):
        actions = admissible(scene, state)
        if actions:
            # Interesting actions are few and at the end: choose half of the time among them.
            actions = actions[-8:] if choice < 0.5 else actions
            state = apply(scene, state, actions[int(choice * 997) % len(actions)])
            assert state is not None
    return scene, state


def every_action(scene: Scene) -> list[str]:
    """All actions with names of this scene, sensible or not."""
    places, things = scene.house.names, scene.contents.names
    plain = ["look", "inventory", *(f"use {thing}" for thing in things)]
    plain += [f"{verb} {place}" for verb in ("go to", "open", "close") for place in places]
    pairs = [("take", "from"), ("move", "to"), *((verb, "with") for verb in TOOLS)]
    plain += [f"{verb} {o} {link} {r}" for verb, link in pairs for o in things for r in places]
    manners = {manner for c in CONDITIONS for manner in (c.take, c.treat, c.move)}
    return plain + [f"{action} {manner}" for action in plain for manner in manners]


@settings(max_examples=60, deadline=None)
@given(states())
def test_the_list_is_exactly_what_is_accepted(found):
    scene, state = found
    actions = admissible(scene, state)
    assert len(set(actions)) == len(actions)
    for action in every_action(scene) if len(scene.contents.names) < 20 else actions:
        assert (apply(scene, state, action) is not None) == (action in actions), action
    assert set(actions) <= set(every_action(scene))


@settings(max_examples=100, deadline=None)
@given(states())
def test_nothing_is_seen_that_is_not_here(found):
    scene, state = found
    names = set(scene.contents.names)
    visible = {
        scene.contents.names[thing]
        for thing, place in enumerate(state.places)
        if place == state.at and not state.closed >> state.at & 1
    }
    held = {scene.contents.names[state.held]} if state.held >= 0 else set()
    mentioned = {name for name in names if f" {name}" in state.text}
    assert mentioned <= visible | held
    assert sum(place < 0 for place in state.places) == len(held)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 25), st.integers(0, 6), st.integers(0, 2**63))
def test_houses_have_what_tasks_need(least, more, seed):
    most = min(25, least + more)
    house = houses(2, least, most)[seed % 2]
    assert least <= len(house.names) == len(set(house.names)) <= most
    assert {*TOOLS.values(), "countertop", "cabinet"} <= set(house.nouns)
    contents = furnish(house, 12, seed)
    assert contents.nouns[0] == LAMP
    assert len(contents.names) == len(set(contents.names)) == 13
    assert all(0 <= place < len(house.names) for place in contents.places)
    for kind in KINDS:
        for goal in goals(house, contents, kind):
            assert Goal.read(goal.sentence) == goal
            lying = {house.nouns[p] for n, p in zip(contents.nouns, contents.places, strict=True) if n == goal.object}
            assert goal.target not in lying
            assert goal.target in (*house.nouns, LAMP)
            assert contents.nouns.count(goal.object) >= (2 if kind == "two" else 1)


def test_pools_only_grow():
    assert houses(3, 12, 16) == houses(9, 12, 16)[:3]
    assert len({house.names for house in houses(40, 12, 16)}) == 40


def test_shares():
    # An egg: 6, 2, 1 and 1 of 10 in fridge, countertop, microwave and cabinet; the last is not here, so of 9. The rest
    # of 0.2 is spread evenly over four receptacles, and two countertops halve their share.
    share = likelihood("egg", ["fridge", "countertop", "countertop", "microwave"])
    assert share == pytest.approx([0.8 * 6 / 9 + 0.05, 0.8 / 9 + 0.05, 0.8 / 9 + 0.05, 0.8 / 9 + 0.05])
    assert likelihood("cloth", ["sofa"]) == [0.0]
    assert sum(likelihood(LAMP, ["desk", "bed", "fridge"])) == pytest.approx(1)
    assert likelihood(LAMP, ["desk", "bed", "fridge"])[2] == 0


def test_contents_follow_the_shares():
    where: Counter[str] = Counter()
    for seed in range(400):
        house = houses(4, 12, 16)[seed % 4]
        contents = furnish(house, 18, seed)
        where.update(house.nouns[p] for n, p in zip(contents.nouns, contents.places, strict=True) if n == "egg")
    assert where.most_common(1)[0][0] == "fridge"
    assert 0.45 < where["fridge"] / where.total() < 0.7


def test_nouns_are_single_words_and_apart():
    receptacles = {noun for room in ROOMS.values() for noun in room}
    assert not receptacles & OBJECTS.keys()
    assert all(noun.isalpha() and noun.islower() for noun in receptacles | OBJECTS.keys())
    assert all({*sort.found, *sort.goes} <= receptacles for sort in OBJECTS.values())
    assert listed(["egg 1"]) == "an egg 1"


# -- tasks ------------------------------------------------------------------------------------------------------------


def problem(task: Task) -> tuple[object, ...]:
    return tuple(task.data.values())


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_no_problem_is_in_two_splits(name):
    world = WORLDS[name]
    by_split = {
        split: {problem(task) for level in ("L0", "L1", "L2") for task in world.tasks(level, split)}
        for split in ("train", "dev", "test")
    }
    assert not by_split["train"] & by_split["dev"]
    assert not by_split["train"] & by_split["test"]
    assert not by_split["dev"] & by_split["test"]


def test_levels_ask_what_they_say():
    world = WORLDS["standard"]
    assert world.tasks("L1", "train") == world.tasks("L0", "train")
    assert {task.data["house"] for task in world.tasks("L0", "test")} <= set(range(16))
    assert {task.data["house"] for task in world.tasks("L1", "dev")} <= set(range(16, 24))
    assert {task.data["house"] for task in world.tasks("L1", "test")} <= set(range(24, 32))
    for level in ("L0", "L1"):
        assert Counter(task.kind for task in world.tasks(level, "test")) == dict.fromkeys(KINDS, 6)
    assert {task.kind for task in world.tasks("L2", "train")} == {"place", "clean", "heat", "light"}
    assert Counter(task.kind for task in world.tasks("L2", "test")) == {"cool": 18, "two": 18}


def test_levels_by_contents():
    world = WORLDS["contents"]
    seen = {(t.data["house"], t.data["contents"]) for level in ("L0", "L2") for t in world.tasks(level, "train")}
    assert all(contents in range(4) for _, contents in seen)
    assert all(t.data["contents"] in range(4) for t in world.tasks("L0", "test"))
    for level in ("L1", "L2"):
        assert not seen & {(t.data["house"], t.data["contents"]) for t in world.tasks(level, "test")}


def test_levels_by_goals():
    world = WORLDS["pairs"]
    trained = {(t.data["object"], t.data["target"]) for level in ("L0", "L2") for t in world.tasks(level, "train")}
    asked = {(t.data["object"], t.data["target"]) for t in world.tasks("L2", "test")}
    assert not trained & asked
    assert len(asked) > 10
    assert {t.kind for t in world.tasks("L2", "train")} == set(KINDS)


def test_training_types_alone():
    world = WORLDS["training types"]
    assert {t.kind for level in ("L0", "L1") for t in world.tasks(level, "test")} == {"place", "clean", "heat", "light"}
    assert {t.kind for t in world.tasks("L2", "test")} == {"cool", "two"}


def test_ids_lead_back_and_do_not_depend_on_the_counts():
    world, more = WORLDS["standard"], Household(**{name: count + 7 for name, count in SMALL.items()})
    for level, split in itertools.product(("L0", "L1", "L2"), ("train", "dev", "test")):
        tasks = world.tasks(level, split)
        assert all(find_task(world, task.id) == task for task in tasks[:5])
        assert more.tasks(level, split)[: len(tasks)] == tasks
    assert world.tasks("L0", "train")[17].id == "L0/train/17"
    assert isinstance(load_world("household", houses=4), World)
    assert isinstance(world.make(), Environment)


@pytest.mark.parametrize(
    "id",
    [
        "",
        "L0",
        "L0/train",
        "L0/train/60",
        "L0/train/-1",
        "L0/train/007",
        "L1/train/0",
        "L3/test/0",
        "L0/test/x",
        "L0/test/1/2",
    ],
)
def test_unknown_ids_are_refused(id):
    with pytest.raises(UsageError, match=r"household has no task .* lists them"):
        WORLDS["standard"].task(id)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kinds": ("place", "cook")}, 'unknown task type "cook"'),
        ({"held_out": ("coool",)}, 'did you mean "cool"'),
        ({"kinds": ()}, "env.kinds is empty"),
        ({"preset": "easy"}, 'unknown env.preset "easy"'),
        ({"unseen": "rooms"}, 'unknown env.unseen "rooms"'),
        ({"receptacles": (4, 9)}, r"env.receptacles is \(4, 9\)"),
        ({"receptacles": (12, 9)}, r"env.receptacles is \(12, 9\)"),
        ({"objects": 99}, "env.objects is 99"),
        ({"houses": 0}, "env.houses is 0"),
        ({"test_tasks": 0}, "env.test_tasks is 0"),
    ],
)
def test_wrong_options_are_named(options, says):
    with pytest.raises(UsageError, match=says):
        load_world("household", **options)


def test_impossible_wishes_are_named():
    with pytest.raises(UsageError, match=r"widen env\.receptacles"):
        Household(receptacles=(8, 8), houses=50).tasks("L0", "test")
    with pytest.raises(UsageError, match="leave no task type for L2/train"):
        Household(kinds=("cool",)).tasks("L2", "train")
    with pytest.raises(UsageError, match='unknown level "L4"'):
        Household().tasks("L4", "train")
    with pytest.raises(UsageError, match='unknown split "valid"'):
        Household().tasks("L0", "valid")
    with pytest.raises(UsageError, match="no task of the household"):
        Household().make().reset(Task("household", "mine", "put a mug on a bed"))
    with pytest.raises(EnvironmentFailure, match="before reset"):
        Household().make().step("look")
    with pytest.raises(UsageError, match="no goal of the household"):
        Goal.read("sing a song")


# -- expert -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_the_expert_solves_every_task(name):
    world = WORLDS[name]
    expert = world.expert()
    tasks = [task for level in ("L0", "L1", "L2") for task in world.tasks(level, "test")]
    results = [episode(world, task, expert) for task in tasks]
    assert all(won for won, _ in results)
    if name == "standard":
        lengths = sorted(len(said) for _, said in results)
        assert 8 <= lengths[len(lengths) // 2] <= 16
        assert sum(length <= 30 for length in lengths) >= 0.98 * len(lengths)


def test_tags_mark_the_search():
    world = WORLDS["standard"]
    sparse, dense = world.expert(), world.expert("dense")
    marked = Counter[str]()
    for task in world.tasks("L0", "test"):
        (_, few), (_, many) = episode(world, task, sparse), episode(world, task, dense)
        for one, other in zip(map(parse, few), map(parse, many), strict=True):
            assert one.well_formed
            assert (one.reasoning, one.action) == (other.reasoning, other.action), "tags change nothing else"
            assert (one.mode, other.mode) != ("explore", "think"), "sparse tags are some of the dense ones"
            marked[f"{one.mode} {other.mode}"] += 1
            if one.mode == "explore":
                assert one.action.startswith("go to ")
                assert "need" in one.reasoning
        assert parse(few[0]).mode == "think"
        assert parse(many[0]).mode == "explore"
    assert marked["explore explore"] > 50
    assert marked["think explore"] > 50


def test_sparse_tags_need_an_open_choice():
    # A lamp may stand on the desk (4 parts) or on the bed (1 part): no open choice. An egg is in the fridge with 6 parts
    # of 10: none either, until the fridge is known.
    here = scene("heat an egg and put it on a bed", [("egg 1", "cabinet 1")])
    said = ask(here, ["go to countertop 1", "go to fridge 1"], range(50))
    assert {parse(text).mode for text in said} == {"think"}
    assert {parse(text).action for text in said} == {"open fridge 1"}
    said = ask(here, ["go to fridge 1", "open fridge 1"], range(50))
    assert {parse(text).mode for text in said} == {"explore"}
    assert len({parse(text).action for text in said}) > 3
    assert "I need an egg. It may be on a countertop." in {parse(text).reasoning for text in said}
    lamp = scene("look at a book under a desklamp", [("book 1", "bed 1")])
    said = ask(lamp, ["go to bed 1", "take book 1 from bed 1"], range(50))
    assert {parse(text).mode for text in said} == {"think"}


def ask(here: Scene, history: list[str], seeds: range) -> list[str]:
    """What the expert says after these actions, once for each seed."""
    expert = Expert(lambda: HouseholdEnvironment(lambda _: here))
    observation = play(here, *history)[-1]
    request = Request(task_of(here), (), observation, tuple(seeds), history=tuple(history))
    [completions] = asyncio.run(expert.sample([request]))
    return [completion.text for completion in completions]


def test_a_beginner_takes_what_is_not_there():
    mug = scene("put a mug on a desk", [("mug 1", "cabinet 1"), ("egg 1", "bed 1")])
    lamp = scene("look at a book under a desklamp", [("book 1", "bed 1")])

    def mistake(here: Scene, *history: str) -> str | None:
        request = Request(task_of(here), (), play(here, *history)[-1], (0,), history=history)
        wrong = Expert(lambda: HouseholdEnvironment(lambda _: here)).mistake(request)
        return wrong and wrong.text

    said = "<think>I need a mug. Here is one, so I take it.</think><action>take mug 1 from bed 1</action>"
    assert mistake(mug, "go to bed 1") == said
    assert not play(mug, "go to bed 1", parse(said).action)[-1].admissible
    assert mistake(mug) is None, "nowhere yet"
    assert mistake(mug, "go to cabinet 1") is None, "closed"
    assert mistake(mug, "go to cabinet 1", "open cabinet 1") is None, "there it is"
    said = "<think>Now I turn on the desklamp.</think><action>use desklamp 1</action>"
    assert mistake(lamp, "go to bed 1", "take book 1 from bed 1") == said


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["go to bed 1", "go to cabinet 1", "open cabinet 1", "go to sinkbasin 1", "look"]), max_size=6)
)
def test_the_expert_knows_only_what_it_has_read(history):
    # Both hide the mug where these actions never look: as long as the texts agree, so do the decisions.
    one, other = (
        scene("put a mug on a desk", [("egg 1", "bed 1"), ("mug 1", place)]) for place in ("cabinet 2", "fridge 1")
    )
    assert texts(play(one, *history)) == texts(play(other, *history))
    assert ask(one, history, range(8)) == ask(other, history, range(8))


def test_the_expert_handles_things_as_they_need_it():
    mug = scene("heat a mug and put it on a bed", [("mug 1", "desk 1")], conditions={"mug 1": STICKY})
    [said] = ask(mug, ["go to desk 1"], range(1))
    assert (
        said
        == "<think>The mug is sticky, so I take it with tongs.</think><action>take mug 1 from desk 1 with tongs</action>"
    )
    taken = ["go to desk 1", "take mug 1 from desk 1 with tongs", "go to microwave 1"]
    assert parse(ask(mug, taken, range(1))[0]).action == "heat mug 1 with microwave 1 on high"


def test_the_expert_returns_to_what_it_saw():
    mugs = scene("put a mug and another mug on a bed", [("mug 1", "desk 1"), ("mug 2", "desk 1")])
    first = ["go to desk 1", "take mug 1 from desk 1", "go to bed 1", "move mug 1 to bed 1"]
    assert set(ask(mugs, first, range(9))) == {
        "<think>I saw a mug there, so I go back.</think><action>go to desk 1</action>"
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 59), st.lists(st.integers(0, 10**6), max_size=15))
def test_the_expert_finishes_what_another_began(number, choices):
    world = WORLDS["standard"]
    task = world.task(f"L0/train/{number}")
    environment = world.make()
    observation, history = environment.reset(task), []

    def take(action: str) -> None:
        nonlocal observation
        history.append(action)
        observation = environment.step(action)

    for choice in choices:
        if not observation.done:
            actions = observation.actions[-6:] if choice % 2 else observation.actions
            take(actions[choice % len(actions)])
    expert = world.expert()
    while not observation.done and len(history) < 75:
        request = Request(task, (), observation, (derive(task.id, len(history)),), history=tuple(history))
        take(parse(asyncio.run(expert.sample([request]))[0][0].text).action)
        assert observation.admissible, history
    assert observation.success, history
