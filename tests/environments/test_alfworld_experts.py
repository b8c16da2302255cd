"""ALFWorld's experts: what is understood, what follows from it, and that they win from wherever they are put."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spark_rl.cli import main
from spark_rl.contracts import Environment, Policy
from spark_rl.environments.alfworld import KINDS, Alfworld
from spark_rl.environments.alfworld.placement import CHANCES, CLOSED, into
from spark_rl.environments.alfworld.planner import PlannerExpert, essential
from spark_rl.environments.alfworld.search import Belief, Goal, SearchExpert, decide
from spark_rl.environments.alfworld.walkthrough import Walkthrough
from spark_rl.environments.searching import Decision
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.prompting.parsing import parse
from spark_rl.types import Observation, Parsed, Request, Task

ROOM = """-= Welcome to TextWorld, ALFRED! =-

You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, a countertop 1, a fridge 1, \
a microwave 1, a shelf 1, and a sinkbasin 1.

Your task is to: put a hot mug in cabinet."""
PLACES = ("cabinet 2", "cabinet 1", "countertop 1", "fridge 1", "microwave 1", "shelf 1", "sinkbasin 1")
GO = tuple(f"go to {place}" for place in PLACES)
HOT_MUG, TWO_MUGS = Goal("heat", "mug", "cabinet"), Goal("two", "mug", "cabinet")


def told(*texts: str) -> Belief:
    """The belief of a path with these answers."""
    belief = Belief.first(ROOM)
    for text in texts:
        belief = belief.after(text)
    return belief


def choose(belief: Belief, goal: Goal, *actions: str, seed: int = 0) -> Decision:
    return decide(belief, goal, (*GO, *actions), random.Random(seed))


def ask(expert: Policy, task: Task, observation: Observation, history: tuple[str, ...], seed: int = 0) -> Parsed:
    request = Request(task, (), observation, seeds=(seed,), history=history)
    [[completion]] = asyncio.run(expert.sample([request]))
    return parse(completion.text)


def play(
    expert: Policy, env: Environment, task: Task, wandering: int = 0, seed: int = 0, horizon: int = 60
) -> tuple[tuple[str, ...], Observation, list[Parsed]]:
    """A random walk, then the expert until it has won: actions, last observation, and what the expert said."""
    rng, history, said = random.Random(seed), (), []
    observation = env.reset(task)
    for _ in range(wandering):
        history += (rng.choice(observation.actions),)
        observation = env.step(history[-1])
    while not observation.done and len(history) < wandering + horizon:
        said.append(ask(expert, task, observation, history, seed=seed + len(history)))
        history += (said[-1].action,)
        observation = env.step(history[-1])
    return history, observation, said


def one_of_each_kind(world: Alfworld) -> list[Task]:
    tasks = world.tasks("L1", "test")
    return [next(task for task in tasks if task.kind == kind) for kind in KINDS]


@pytest.fixture(scope="module")
def made() -> Alfworld:
    """Generated games, which need no data."""
    pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")
    return Alfworld(games="generated", objects=20)


@pytest.fixture(scope="module")
def official(alfworld_games: Path) -> Alfworld:
    pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")
    return Alfworld(data=str(alfworld_games))


# -- what a task asks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("put a vase in safe.", Goal("place", "vase", "safe")),
        ("put some watch on safe.", Goal("place", "watch", "safe")),
        ("put two soapbar in garbagecan.", Goal("two", "soapbar", "garbagecan")),
        ("find two toiletpaper and put them in cabinet.", Goal("two", "toiletpaper", "cabinet")),
        ("put a clean spatula in drawer.", Goal("clean", "spatula", "drawer")),
        ("clean some spatula and put it in drawer.", Goal("clean", "spatula", "drawer")),
        ("put a hot tomato in garbagecan.", Goal("heat", "tomato", "garbagecan")),
        ("heat some egg and put it in garbagecan.", Goal("heat", "egg", "garbagecan")),
        ("put a cool tomato in microwave.", Goal("cool", "tomato", "microwave")),
        ("cool some potato and put it in microwave.", Goal("cool", "potato", "microwave")),
        ("examine the pencil with the desklamp.", Goal("light", "pencil", "desklamp")),
        ("look at pencil under the desklamp.", Goal("light", "pencil", "desklamp")),
    ],
)
def test_every_sentence_is_understood(sentence: str, goal: Goal) -> None:
    assert Goal.read(sentence) == goal


def test_another_sentence_is_refused() -> None:
    with pytest.raises(PolicyFailure, match='does not understand the task "sing"'):
        Goal.read("sing")


def test_every_official_sentence_is_understood(alfworld_games: Path) -> None:
    kinds = dict(zip(KINDS, ("place", "light", "clean", "heat", "cool", "two"), strict=True))
    for level in ("L0", "L1"):
        for task in Alfworld(data=str(alfworld_games)).tasks(level, "test"):
            _, thing, _, target, _ = task.id.split("/")[1].lower().split("-")
            assert Goal.read(task.instruction) == Goal(kinds[task.kind], thing, target)  # pyright: ignore[reportArgumentType]


# -- what a path has told -------------------------------------------------------------------------------------------


def test_a_belief_is_folded_from_texts() -> None:
    belief = Belief.first(ROOM)
    assert belief == Belief(PLACES)  # the mug of the task is not one that was seen
    belief = belief.after("You arrive at shelf 1. On the shelf 1, you see a egg 1, a mug 2, and a mug 1.")
    assert belief.contents == {"shelf 1": ("egg 1", "mug 2", "mug 1")}
    belief = belief.after("You arrive at fridge 1. The fridge 1 is closed.")
    assert (belief.closed, list(belief.contents)) == ({"fridge 1"}, ["shelf 1"])
    belief = belief.after("You open the fridge 1. The fridge 1 is open. In it, you see nothing.")
    assert (belief.closed, belief.contents["fridge 1"]) == (frozenset(), ())
    belief = belief.after("You close the fridge 1.")
    assert belief.closed == {"fridge 1"}
    belief = belief.after("You pick up the mug 2 from the shelf 1.")
    assert (belief.held, belief.origin, belief.contents["shelf 1"]) == ("mug 2", "shelf 1", ("egg 1", "mug 1"))
    belief = belief.after("You heat the mug 2 using the microwave 1.").after("You clean the mug 2 using the sinkbasin 1.")
    assert belief.treated == {("heat", "mug 2"), ("clean", "mug 2")}
    belief = belief.after("You cool the mug 2 using the fridge 1.")
    assert belief.treated == {("cool", "mug 2"), ("clean", "mug 2")}
    belief = belief.after("You move the mug 2 to the cabinet 1.")
    assert (belief.held, belief.contents["cabinet 1"]) == ("", ("mug 2",))
    assert belief.where("mug") == [("mug 1", "shelf 1"), ("mug 2", "cabinet 1")]


@pytest.mark.parametrize(
    "text",
    [
        "Nothing happens.",
        "You are carrying: a mug 1.",
        "You are facing the shelf 1. Next to it, you see nothing.",
        "This is a hot mug 1.",
        "You turn on the desklamp 1.",
    ],
)
def test_texts_that_tell_nothing_new_change_nothing(text: str) -> None:
    belief = told("You arrive at shelf 1. On the shelf 1, you see a mug 1.")
    assert belief.after(text) == belief


def test_what_is_listed_in_two_receptacles_is_taken_from_both() -> None:
    seen = (f"You arrive at {place}. On the {place}, you see a mug 1." for place in ("shelf 1", "countertop 1"))
    assert told(*seen, "You pick up the mug 1 from the shelf 1.").where("mug") == []


# -- what follows from it -------------------------------------------------------------------------------------------


def test_it_fetches_treats_and_delivers() -> None:
    here = told("You arrive at shelf 1. On the shelf 1, you see a egg 1, and a mug 2.")
    decision = choose(here, HOT_MUG, "examine shelf 1", "take egg 1 from shelf 1", "take mug 2 from shelf 1")
    assert decision == Decision("take mug 2 from shelf 1", "I need a mug. Here is one, so I take it.")
    away = here.after("You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.")
    assert choose(away, HOT_MUG) == Decision("go to shelf 1", "I need a mug. I saw one on the shelf, so I go back.")

    held = here.after("You pick up the mug 2 from the shelf 1.")
    assert choose(held, HOT_MUG) == Decision("go to microwave 1", "I have the mug. Next I heat it with a microwave.")
    heat = "heat mug 2 with microwave 1"
    assert choose(held, HOT_MUG, "open microwave 1", heat) == Decision(heat, "Now I heat the mug.")

    hot = held.after("You heat the mug 2 using the microwave 1.")
    decision = choose(hot, HOT_MUG)
    assert decision.action in ("go to cabinet 1", "go to cabinet 2")
    assert decision.reason == "I have the hot mug. Next I put it in a cabinet."
    seen = hot.after("You arrive at cabinet 2. On the cabinet 2, you see nothing.")
    assert {choose(seen, HOT_MUG, seed=seed).action for seed in range(9)} == {"go to cabinet 2"}  # it is known to be open
    opened = choose(hot, HOT_MUG, "examine cabinet 1", "open cabinet 1")
    assert opened == Decision("open cabinet 1", "The cabinet is closed, so I open it.")
    move = "move mug 2 to cabinet 1"
    assert choose(hot, HOT_MUG, "close cabinet 1", move) == Decision(move, "Now I put the mug in the cabinet.")


def test_the_second_of_two_goes_to_the_first() -> None:
    texts = [
        "You arrive at cabinet 1. On the cabinet 1, you see a mug 3.",
        "You arrive at shelf 1. On the shelf 1, you see a mug 1.",
    ]
    belief = told(*texts)
    decision = choose(belief, TWO_MUGS, "examine cabinet 1", "take mug 3 from cabinet 1")  # one is there from the start
    assert decision == Decision("go to shelf 1", "I need another mug. I saw one on the shelf, so I go back.")
    held = belief.after("You pick up the mug 1 from the shelf 1.")
    for seed in range(5):
        decision = choose(held, TWO_MUGS, "move mug 1 to cabinet 2", seed=seed)
        assert decision == Decision("go to cabinet 1", "I have the other mug. Next I put it in a cabinet.")
    searching = told(texts[0])
    assert choose(searching, TWO_MUGS).reason.startswith("I need another mug. It may be ")


def test_it_holds_the_thing_and_looks_for_the_lamp() -> None:
    goal = Goal("light", "mug", "desklamp")
    held = told("You arrive at shelf 1. On the shelf 1, you see a mug 1.", "You pick up the mug 1 from the shelf 1.")
    decision = choose(held, goal)
    assert decision.search
    assert decision.reason.startswith("I need a desklamp. It may be ")
    known = held.after("You arrive at countertop 1. On the countertop 1, you see a desklamp 1.")
    assert choose(known, goal) == Decision("go to countertop 1", "I have the mug. Next I look at it under a desklamp.")
    assert choose(known, goal, "use desklamp 1") == Decision("use desklamp 1", "Now I turn on the desklamp.")


def test_a_wrong_thing_is_put_where_it_was() -> None:
    held = told("You arrive at shelf 1. On the shelf 1, you see a egg 1.", "You pick up the egg 1 from the shelf 1.")
    reason = "I do not need the egg, so I put it away."
    assert choose(held, HOT_MUG) == Decision("go to shelf 1", reason)
    assert choose(held, HOT_MUG, "move egg 1 to sinkbasin 1") == Decision("move egg 1 to sinkbasin 1", reason)
    assert choose(held, HOT_MUG, "open shelf 1") == Decision("open shelf 1", reason)


def test_what_is_closed_is_opened() -> None:
    shut = told("You arrive at fridge 1. The fridge 1 is closed.")
    opened = Decision("open fridge 1", "I need a mug. The fridge is closed, so I open it.", search=True)
    assert choose(shut, HOT_MUG, "examine fridge 1", "open fridge 1") == opened
    seen = told("You open the fridge 1. The fridge 1 is open. In it, you see a mug 1.", "You close the fridge 1.")
    again = choose(seen, HOT_MUG, "examine fridge 1", "open fridge 1")
    assert again == Decision("open fridge 1", "I need a mug. I saw one in the fridge, so I open it again.")


def test_a_neighbour_that_cannot_be_gone_to_is_examined_or_opened() -> None:
    looked = [
        f"You arrive at {place}. On the {place}, you see nothing." for place in PLACES if not place.startswith("cabinet 2")
    ]
    beside = told(*looked)
    assert choose(beside, HOT_MUG, "examine cabinet 1", "examine cabinet 2").action == "examine cabinet 2"
    decision = choose(beside, HOT_MUG, "examine cabinet 1", "examine cabinet 2", "open cabinet 2")
    assert decision == Decision("open cabinet 2", "I need a mug. It may be in a cabinet here.", search=True)
    exhausted = beside.after("You open the cabinet 2. The cabinet 2 is open. In it, you see nothing.")
    assert choose(exhausted, HOT_MUG) == Decision("look", "I need a mug. I have looked everywhere.", search=True)


def test_the_search_is_drawn_by_chance_over_cost() -> None:
    chances = CHANCES["mug"]
    weights = {place: chances[place.split()[0]] / (1 + (place.split()[0] in CLOSED)) for place in PLACES}
    total, draws = sum(weights.values()), 4000
    counted: dict[str, int] = dict.fromkeys(PLACES, 0)
    for seed in range(draws):
        counted[choose(told(), HOT_MUG, seed=seed).action.removeprefix("go to ")] += 1
    for place in PLACES:
        assert counted[place] / draws == pytest.approx(weights[place] / total, abs=0.03)


def test_what_is_open_and_what_is_not() -> None:
    def left(*places: str) -> Decision:
        looked = [f"You arrive at {p}. On the {p}, you see nothing." for p in PLACES if p not in places]
        return choose(told(*looked), HOT_MUG)

    assert choose(told(), HOT_MUG).open_choice
    # A countertop holds a mug with a chance of 0.25, a shelf 0.07, a closed fridge 0.26 for twice the steps, a sink 0.13.
    assert not left("countertop 1", "shelf 1").open_choice  # 0.25 against 0.07
    assert left("countertop 1", "fridge 1", "sinkbasin 1").open_choice  # 0.25 against 0.13 + 0.13
    assert not left("shelf 1").open_choice  # one place is no choice


def test_the_table_is_of_chances() -> None:
    assert len(CHANCES) > 50
    assert all(0 < chance <= 1 for row in CHANCES.values() for chance in row.values())
    assert CHANCES["cellphone"]["shelf"] == 0.05  # a row's second line
    assert (into("fridge"), into("desk")) == ("in", "on")


# -- the searching expert as a policy -------------------------------------------------------------------------------


def no_environment() -> Environment:
    raise AssertionError("the path was told step by step")


class Texts:
    """An environment that answers with given texts."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.at = texts, 0

    def reset(self, task: Task) -> Observation:
        self.at = 0
        return Observation(self.texts[0])

    def step(self, action: str) -> Observation:
        self.at += 1
        return Observation(self.texts[self.at])

    def close(self) -> None:
        pass


TASK = Task("alfworld", "valid_seen/x/y", "put a hot mug in cabinet.")


def test_tags_mark_pivots_or_every_step_of_a_search() -> None:
    path = [
        ("", ROOM, GO),
        ("go to fridge 1", "You arrive at fridge 1. The fridge 1 is closed.", (*GO, "examine fridge 1", "open fridge 1")),
        ("open fridge 1", "You open the fridge 1. The fridge 1 is open. In it, you see nothing.", GO),
        ("go to shelf 1", "You arrive at shelf 1. On the shelf 1, you see a mug 1.", (*GO, "take mug 1 from shelf 1")),
        ("take mug 1 from shelf 1", "You pick up the mug 1 from the shelf 1.", GO),
    ]
    modes: dict[str, list[str | None]] = {}
    for tags in ("sparse", "dense"):
        expert, history = SearchExpert(no_environment, tags), ()
        modes[tags] = []
        for action, text, actions in path:
            history += (action,) if action else ()
            modes[tags].append(ask(expert, TASK, Observation(text, actions), history).mode)
    assert modes["dense"] == ["explore", "explore", "explore", "think", "think"]
    assert modes["sparse"] == ["think", "think", "explore", "think", "think"]


def test_it_reads_texts_and_nothing_else() -> None:
    texts = (ROOM, "You arrive at shelf 1. On the shelf 1, you see a mug 1.", "Nothing happens.")
    made: list[Any] = []

    def make() -> Any:
        made.append(Texts(*texts))
        return made[-1]

    expert = SearchExpert(make)
    observation = Observation(texts[-1], (*GO, "examine shelf 1", "take mug 1 from shelf 1"))
    assert ask(expert, TASK, observation, ("go to shelf 1", "sing")).action == "take mug 1 from shelf 1"
    assert len(made) == 1  # it was put on the path in the middle: played again, once
    assert ask(expert, TASK, observation, ("go to shelf 1", "sing")).action == "take mug 1 from shelf 1"
    followed = Observation("You pick up the mug 1 from the shelf 1.", GO)
    assert ask(expert, TASK, followed, ("go to shelf 1", "sing", "take mug 1 from shelf 1")).action == "go to microwave 1"
    assert len(made) == 1


def test_seeds_decide_what_is_open_and_nothing_else_does() -> None:
    first = Observation(ROOM, GO)
    request = Request(TASK, (), first, seeds=tuple(range(20)))
    answers = [asyncio.run(SearchExpert(no_environment).sample([request]))[0] for _ in range(2)]
    assert answers[0] == answers[1]
    assert len({parse(answer.text).action for answer in answers[0]}) > 3
    assert all(parse(answer.text).well_formed for answer in answers[0])


def test_a_mistake_takes_what_is_not_there() -> None:
    expert = SearchExpert(no_environment)
    assert expert.mistake(Request(TASK, (), Observation(ROOM, GO), seeds=(0,))) is None
    empty = Observation("You arrive at shelf 1. On the shelf 1, you see nothing.", (*GO, "examine shelf 1"))
    wrong = expert.mistake(Request(TASK, (), empty, seeds=(0,), history=("go to shelf 1",)))
    assert wrong is not None
    assert parse(wrong.text).action == "take mug 1 from shelf 1"
    found = Observation(
        "You arrive at shelf 1. On the shelf 1, you see a mug 1.", (*GO, "examine shelf 1", "take mug 1 from shelf 1")
    )
    expert = SearchExpert(no_environment)
    ask(expert, TASK, Observation(ROOM, GO), ())
    assert expert.mistake(Request(TASK, (), found, seeds=(0,), history=("go to shelf 1",))) is None


def test_a_room_that_lacks_the_tool_is_said() -> None:
    held = Belief(("shelf 1",), held="mug 1")
    with pytest.raises(PolicyFailure, match="needs a microwave, and the room has none"):
        decide(held, HOT_MUG, (), random.Random(0))


# -- winning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["search", "planner"])
def test_it_wins_generated_games_of_every_kind(made: Alfworld, solver: Any) -> None:
    world = replace(made, solver=solver)
    for task in one_of_each_kind(world):
        history, last, said = play(world.expert("dense"), world.make(), task)
        assert last.success, (task.id, history)
        assert all(answer.well_formed for answer in said)


@pytest.mark.parametrize("solver", ["search", "planner"])
@pytest.mark.parametrize("kind", range(6))
def test_it_continues_what_another_began(official: Alfworld, kind: int, solver: Any) -> None:
    world = replace(official, solver=solver)
    task = one_of_each_kind(world)[kind]
    history, last, said = play(world.expert(), world.make(), task, wandering=12, seed=kind)
    assert last.success, history
    assert all(answer.well_formed for answer in said)
    again, _, _ = play(world.expert(), world.make(), task, wandering=12, seed=kind)
    assert again == history


def test_the_searching_expert_wins_official_games(official: Alfworld) -> None:
    for task in one_of_each_kind(official):
        env = official.make()
        history, last, _ = play(SearchExpert(no_environment), env, task, horizon=30)
        assert last.success, history
        assert len(history) <= 30


@pytest.mark.slow
def test_the_searching_expert_wins_nearly_all(official: Alfworld) -> None:
    tasks = [*official.tasks("L0", "test"), *official.tasks("L1", "test")][::11]
    lengths = [len(play(SearchExpert(no_environment), official.make(), task)[0]) for task in tasks]
    assert len(lengths) == 25
    assert sum(length <= 30 for length in lengths) >= 24
    assert sum(lengths) / len(lengths) < 12


@pytest.mark.slow
def test_the_planner_wins_from_the_middle_of_walks(official: Alfworld) -> None:
    world = replace(official, solver="planner")
    for number, task in enumerate([*world.tasks("L0", "test"), *world.tasks("L1", "test")][::11]):
        history, last, _ = play(world.expert(), world.make(), task, wandering=8, seed=number, horizon=20)
        assert last.success, (task.id, history)


def test_a_plan_disturbs_no_state(made: Alfworld) -> None:
    world = replace(made, solver="planner")
    task, env = one_of_each_kind(world)[3], world.make()
    env.reset(task)
    untouched = env.fork().step("look")
    branch = env.fork()
    ask(world.expert(), task, env.reset(task), ())
    ask(world.expert(), task, env.step("inventory"), ("inventory",))
    assert branch.step("look") == untouched


def test_the_planner_says_when_nothing_wins(made: Alfworld) -> None:
    world = replace(made, solver="planner")
    task = one_of_each_kind(world)[0]
    history, last, _ = play(world.expert(), world.make(), task)
    assert last.success
    with pytest.raises(PolicyFailure, match="finds nothing that wins"):
        ask(world.expert(), task, last, history)


def test_only_what_the_goal_names_or_is_held_can_be_picked_up() -> None:
    start = (
        "(objectType Mug_1 MugType) (objectType Egg_1 EggType) (pickupable Mug_1) (pickupable Egg_1)\n (pickupable  Pan_1) "
    )
    goal = "(:goal (and (objectType ?o MugType) (pickupable ?o)))"
    assert essential(start + goal, []).count("(pickupable") == 2
    assert "(pickupable Mug_1)" in essential(start + goal, [])
    assert "(pickupable  Pan_1)" in essential(start + goal, ["pan_1"])  # the engine writes ids in small letters
    assert essential(start + goal, []).endswith(goal)


# -- choosing one ---------------------------------------------------------------------------------------------------


def test_the_world_chooses_its_expert(made: Alfworld) -> None:
    kinds = {"search": SearchExpert, "walkthrough": Walkthrough, "planner": PlannerExpert}
    for solver, kind in kinds.items():
        assert isinstance(replace(made, solver=solver).expert("dense"), kind)
    assert isinstance(made.expert(), SearchExpert)
    with pytest.raises(UsageError, match=r'unknown expert "serch"; did you mean "search"\?'):
        replace(made, solver="serch")


def test_demonstrations_are_by_the_expert_named(made: Alfworld, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    games = ["--env.games", "generated", "--env.objects", "10", "--env.train_tasks", "2", "--count", "2"]
    for expert in ("search", "walkthrough", "planner"):
        out = tmp_path / f"{expert}.jsonl"
        assert main(["demos", "alfworld", *games, "--expert", expert, "--out", str(out)]) == 0
        reasons = out.read_text()
        assert ("It may be " in reasons) == (expert == "search")
        assert "2 demonstrations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["alfworld", "--expert", "planer"], 'unknown expert "planer"; did you mean "planner"?'),
        (["household", "--expert", "search"], "household has one expert only: leave it out"),
    ],
)
def test_a_wrong_expert_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demos", *words]) == 2
    assert message in capsys.readouterr().err
