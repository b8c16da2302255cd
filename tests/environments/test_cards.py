"""EZPoints, NumberLine and Blackjack: hand-played games, exact odds counted again, splits, and the experts."""

from __future__ import annotations

import ast
import asyncio
import itertools
import pickle
import random
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.contracts import Environment, World
from spark_rl.data.demonstrations import collect
from spark_rl.environments.cards import Blackjack, EZPoints, NumberLine, ezpoints, numberline
from spark_rl.environments.cards.blackjack import Table, card
from spark_rl.environments.cards.ezpoints import Formula, value
from spark_rl.environments.cards.numberline import Line
from spark_rl.environments.cards.odds import ceiling, chances, points
from spark_rl.environments.check import check_world
from spark_rl.environments.games import NOTHING_HAPPENS
from spark_rl.environments.registry import find_task, load_world
from spark_rl.environments.replay import replay
from spark_rl.errors import UsageError
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Task

WORLDS = {
    "ezpoints": EZPoints(),
    "two cards": EZPoints(cards=2, targets=(2, 40)),
    "numberline": NumberLine(),
    "blackjack": Blackjack(),
    "score": Blackjack(reward="score", train_tasks=300),
}
LEVELS, SPLITS = ("L0", "L1", "L2"), ("train", "dev", "test")


def walk(position, *actions):
    for action in actions:
        after = position.after(action)
        assert after is not None, action
        position = after
    return position


# -- EZPoints ---------------------------------------------------------------------------------------------------------


def test_a_formula_by_hand():
    formula = Formula((3, 5, 5), 20)
    assert formula.text == "Cards: 3, 5, 5. Target: 20. Formula: empty."
    assert formula.actions() == ("3", "5")
    half = walk(formula, "5", "+")
    assert half.actions() == ("3", "5")
    assert walk(half, "5").left == (3,)
    last = walk(half, "3", "*", "5")
    assert (last.actions(), last.done) == (("=",), False)
    won = walk(last, "=")
    assert won.text == "Cards: 3, 5, 5. Target: 20. Formula: 5 + 3 * 5 = 20."
    assert (won.done, won.won, won.reward, won.actions()) == (True, True, 1.0, ())
    lost = walk(formula, "3", "+", "5", "+", "5", "=")
    assert lost.text.endswith("Formula: 3 + 5 + 5 = 13.")
    assert (lost.done, lost.won, lost.reward) == (True, False, 0.0)


@pytest.mark.parametrize("action", ["4", "+", "=", "3 5", "3+5", "03", " 3", "__import__('os')", "1e1", "3\n", "٣"])
def test_symbols_that_do_not_fit_change_nothing(action):
    formula = Formula((3, 5), 15)
    assert formula.after(action) is None
    environment = EZPoints(cards=2).make()
    task = EZPoints(cards=2).task("3,5/15")
    first = environment.reset(task)
    for _ in range(50):  # what never ended the original
        answer = environment.step(action)
        assert answer.text == f"{NOTHING_HAPPENS}\n{first.text}"
        assert not answer.admissible
        assert not answer.done


@given(st.lists(st.integers(1, 10), min_size=1, max_size=5), st.data())
def test_values_are_those_of_arithmetic(cards, data):
    symbols = [str(cards[0])]
    for number in cards[1:]:
        symbols += [data.draw(st.sampled_from("+*")), str(number)]
    tree = ast.parse(" ".join(symbols), mode="eval")

    def count(node):  # the grammar of Python, without running anything
        if isinstance(node, ast.Constant):
            return node.value
        left, right = count(node.left), count(node.right)
        return left + right if isinstance(node.op, ast.Add) else left * right

    assert value(symbols) == count(tree.body)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 10), min_size=2, max_size=4))
def test_totals_are_all_that_formulas_come_to(cards):
    found = {
        value([symbol for pair in zip(order, (*operators, ""), strict=True) for symbol in (str(pair[0]), pair[1]) if symbol])
        for order in itertools.permutations(cards)
        for operators in itertools.product("+*", repeat=len(cards) - 1)
    }
    assert ezpoints._totals(tuple(sorted(cards))) == found
    for target in {*found, *range(1, 30), max(found) + 1}:
        assert Formula(tuple(cards), target).winnable == (target in found)


def test_the_formula_expert_always_wins_and_sees_when_it_cannot():
    for task in WORLDS["ezpoints"].tasks("L2", "test"):
        formula, rng = WORLDS["ezpoints"].start(task), random.Random(task.id)
        while not formula.done:
            formula = walk(formula, ezpoints.decide(formula, rng).action)
        assert formula.won
    hopeless = walk(Formula((2, 3, 4), 24), "2", "+")
    assert not hopeless.winnable
    assert ezpoints.decide(hopeless, random.Random(0)).reason == "This cannot make 24 any more."


def test_the_originals_problem_is_there():
    world = EZPoints(cards=2, targets=(12, 12))
    hands = {tuple(sorted(map(int, task.id[:-3].split(",")))) for split in SPLITS for task in _all(world, split)}
    assert hands <= {(2, 10), (3, 9), (4, 8), (5, 7), (6, 6), (2, 6), (3, 4)}
    with pytest.raises(UsageError, match="12 to 12 leave L1/test nothing"):
        world.tasks("L1", "test")


def _all(world, split):
    for level in LEVELS[:1]:
        try:
            yield from world.tasks(level, split)
        except UsageError:
            continue


# -- NumberLine -------------------------------------------------------------------------------------------------------


def test_a_line_by_hand():
    line = Line(0, 2, 5)
    assert (line.text, line.actions()) == ("Target: 2. Current: 0.", ("+",))
    assert line.after("-") is None
    assert Line(5, 2, 5).after("+") is None
    assert walk(line, "+", "-", "+").at == 1
    won = walk(line, "+", "+")
    assert (won.won, won.done, won.reward, won.actions()) == (True, True, 1.0, ())
    assert won.after("+") is None


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_line_expert_goes_straight(at, target):
    line, steps = Line(at, target, 40), 0
    while not line.done:
        line, steps = walk(line, numberline.decide(line, random.Random(0)).action), steps + 1
    assert steps == abs(at - target)


# -- Blackjack --------------------------------------------------------------------------------------------------------


def test_hands_are_counted():
    assert points([1, 13]) == (21, True)
    assert points([1, 1]) == (12, True)
    assert points([1, 10, 10]) == (21, False)
    assert points([1, 5, 9]) == (15, False)
    assert points([11, 12, 2]) == (22, False)
    assert points([1]) == (11, True)


def test_a_deal_by_hand():
    deal = 990204
    assert [card(deal, place) for place in range(5)] == [10, 6, 9, 7, 5]  # a five comes next: 21 for either side
    table = Table(deal)
    assert table.text == "You have 10, 6 (16). The dealer has 9 (9) and a hidden card."
    assert table.actions() == ("hit", "stand")
    stood = walk(table, "stand")
    assert stood.text == "You have 10, 6 (16). The dealer has 9, 7, 5 (21). You lose."
    assert (stood.done, stood.won, stood.reward, stood.actions()) == (True, False, 0.0, ())
    assert walk(Table(deal, score=True), "stand").reward == -1.0
    hit = walk(table, "hit")
    assert hit.text == "You have 10, 6, 5 (21). The dealer has 9 (9) and a hidden card."
    assert walk(table, "hit") == hit, "siblings share the cards to come"
    over = walk(hit, *["hit"] * next(n for n in itertools.count(1) if walk(hit, *["hit"] * n).done))
    assert "You lose." in over.text
    assert (over.won, over.dealer) == (False, table.dealer)


def test_a_draw_is_no_success():
    deal = next(d for d in itertools.count() if walk(Table(d), "stand").text.endswith("You draw."))
    drawn = walk(Table(deal, score=True), "stand")
    assert (drawn.done, drawn.won, drawn.reward) == (True, False, 0.0)
    won = next(t for d in itertools.count() if (t := walk(Table(d), "stand")).won)
    assert won.text.endswith("You win.")
    assert won.reward == 1.0


@settings(max_examples=200)
@given(st.integers(0, 2**62), st.integers(0, 8))
def test_the_dealer_draws_to_seventeen(deal, hits):
    table = Table(deal)
    for _ in range(hits):
        table = table.after("hit") or table
    if table.done:
        assert points(table.hand)[0] > 21
        return
    stood = walk(table, "stand")
    assert 17 <= points(stood.dealer)[0] <= 26
    assert points(stood.dealer[:-1])[0] < 17
    assert stood.hand == table.hand
    assert pickle.loads(pickle.dumps(stood)) == stood


DECK = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10]


@cache
def outcome(mine: int, cards: tuple[int, ...]) -> Fraction:
    """Chance that a hand of this total wins against a dealer's sorted cards: fractions, by the rules alone."""
    theirs = points(cards)[0]
    if theirs >= 17:
        return Fraction(theirs > 21 or mine > theirs)
    return sum(outcome(mine, tuple(sorted((*cards, rank)))) for rank in DECK) / Fraction(13)


@cache
def best(hand: tuple[int, ...], shown: int) -> Fraction:
    """Chance to win a sorted hand, played as well as can be."""
    total = points(hand)[0]
    if total > 21:
        return Fraction(0)
    stand = outcome(total, (shown,))
    if total == 21 and not points(hand)[1]:
        return stand
    return max(stand, sum(best(tuple(sorted((*hand, rank))), shown) for rank in DECK) / Fraction(13))


def test_chances_equal_another_count():
    for shown in (1, 6, 10):
        for hand in ((2, 2), (10, 6), (1, 6), (1, 7), (10, 10), (4, 8), (1, 1), (5, 6)):
            assert max(chances(*points(hand), shown)) == pytest.approx(float(best(hand, shown)), abs=1e-12)
    # By hand: 21 loses to nothing and draws with 21 only; 12 wins by standing only where the dealer goes over.
    assert chances(21, False, 10)[0] == pytest.approx(1 - float(1 - outcome(21, (10,))))
    assert chances(12, False, 6)[0] == chances(4, False, 6)[0]
    assert chances(12, False, 6)[0] == pytest.approx(0.4231, abs=1e-4)


def test_the_ceiling_is_what_the_expert_comes_to():
    assert ceiling() == pytest.approx(0.4316, abs=1e-4)
    world, wins = Blackjack(train_tasks=4000), 0
    for task in world.tasks("L0", "train"):
        wins += world._played(task, 30).won
    # Openings are those of training, four fifths of all: the mean of their chances is near the ceiling, and wins near it.
    mean = sum(_chance(world.start(task)) for task in world.tasks("L0", "train")) / 4000
    assert abs(mean - ceiling()) < 0.04
    assert abs(wins / 4000 - mean) < 3 * (mean * (1 - mean) / 4000) ** 0.5


def _chance(table: Table) -> float:
    return max(chances(*points(table.hand), min(table.dealer[0], 10)))


def test_the_blackjack_expert_reads_no_hidden_card():
    # Two deals that look the same: whatever comes, the expert says the same.
    one, other = 54084, 19807
    assert [card(one, place) for place in range(4)] == [10, 6, 9, 2]
    assert [card(other, place) for place in range(4)] == [10, 6, 9, 10]
    world = Blackjack()
    decide = world.expert().decide
    assert decide(Table(one), random.Random(0)) == decide(Table(other), random.Random(0))


# -- all three --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORLDS)
def test_the_contract_holds(name):
    assert isinstance(WORLDS[name], World)
    assert isinstance(WORLDS[name].make(), Environment)
    report = check_world(WORLDS[name], tasks=9)
    assert report.passed, report


COUNTS = {
    "ezpoints": {"L0": (1489, 40, 57), "L1": (1489, 29, 45), "L2": (1489, 60, 120)},
    "numberline": {"L0": (261, 46, 53), "L1": (261, 30, 30), "L2": (261, 60, 120)},
    "blackjack": dict.fromkeys(LEVELS, (2000, 60, 120)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_each_level_and_split_has_its_tasks(name):
    counts = {level: tuple(len(WORLDS[name].tasks(level, split)) for split in SPLITS) for level in LEVELS}
    assert counts == COUNTS[name]


def problem(task: Task) -> object:
    if task.environment == "ezpoints":
        hand, _, target = task.id.partition("/")
        return tuple(sorted(hand.split(","))), target
    if task.environment == "numberline":
        return task.id.partition("/")[0]
    return tuple(card(task.data["deal"], place) for place in range(8))


@pytest.mark.parametrize("name", COUNTS)
def test_no_problem_is_in_two_splits(name):
    by_split = {split: {problem(task) for level in LEVELS for task in WORLDS[name].tasks(level, split)} for split in SPLITS}
    assert not by_split["train"] & by_split["dev"]
    assert not by_split["train"] & by_split["test"]
    assert not by_split["dev"] & by_split["test"]


def test_levels_ask_what_they_say():
    world = WORLDS["ezpoints"]
    targets = {level: {t.id.partition("/")[2] for t in world.tasks(level, "test")} for level in LEVELS}
    trained = {t.id.partition("/")[2] for t in world.tasks("L0", "train")}
    assert targets["L0"] | targets["L2"] <= trained
    assert not targets["L1"] & trained
    assert {t.kind for t in world.tasks("L0", "train")} == {"3 cards"}
    assert {t.kind for t in world.tasks("L2", "test")} == {"4 cards"}

    line = WORLDS["numberline"]
    goals = {level: {line.start(t).target for t in line.tasks(level, "test")} for level in LEVELS}
    trained = {line.start(t).target for t in line.tasks("L0", "train")}
    assert goals["L0"] <= trained
    assert not goals["L1"] & trained
    assert all(max(line.start(t).at, line.start(t).target) > 20 for t in line.tasks("L2", "test"))

    deals = WORLDS["blackjack"]

    def openings(level, split):
        tables = [deals.start(task) for task in deals.tasks(level, split)]
        return {(*sorted(min(rank, 10) for rank in t.hand), min(t.dealer[0], 10)) for t in tables}

    training = openings("L0", "train")
    assert not (openings("L1", "test") | openings("L1", "dev")) & (training | openings("L0", "test"))
    assert len(openings("L0", "test") & training) > 0.9 * len(openings("L0", "test"))
    assert {t.kind for t in deals.tasks("L0", "train")} == {"hard", "soft"}
    assert {t.kind for t in deals.tasks("L2", "train")} == {"hard"}
    assert {t.kind for t in deals.tasks("L2", "test")} == {"soft"}


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("ezpoints", "3,7,5/1000"), ("ezpoints", "11,7/18"), ("ezpoints", "3,7"), ("ezpoints", "03,7/10"),
        ("ezpoints", "5/5"),
        ("numberline", "3-3/20"), ("numberline", "3-21/20"), ("numberline", "3-8"), ("numberline", "-3-8/20"),
        ("blackjack", "L1/train/0"), ("blackjack", "L0/test/120"), ("blackjack", "L0/test/²"), ("blackjack", ""),
    ],
)  # fmt: skip
def test_unknown_tasks_are_refused(name, id):
    with pytest.raises(UsageError, match=f"{name} has no task"):
        find_task(WORLDS[name], id)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ezpoints", {"cards": 5}, "env.cards is 5: it must lie between 2 and 4"),
        ("ezpoints", {"targets": (9, 3)}, "env.targets is (9, 3)"),
        ("ezpoints", {"test_tasks": 0}, "env.test_tasks is 0"),
        ("numberline", {"end": 4}, "env.end is 4"),
        ("numberline", {"dev_tasks": 0}, "env.dev_tasks is 0"),
        ("blackjack", {"reward": "money"}, 'unknown env.reward "money"'),
        ("blackjack", {"train_tasks": 0}, "env.train_tasks is 0"),
    ],
)
def test_wrong_options_are_named(name, options, said):
    with pytest.raises(UsageError) as caught:
        load_world(name, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", COUNTS)
def test_other_worlds_tasks_are_refused(name):
    with pytest.raises(UsageError, match="is none of"):
        WORLDS[name].make().reset(Task("household", "L0/test/0", ""))


@pytest.mark.parametrize("name", WORLDS)
def test_forks_replays_and_uninterrupted_episodes_are_alike(name):
    world, rng = WORLDS[name], random.Random(3)
    for task in rng.sample(world.tasks("L0", "test"), 10):
        environment = world.make()
        texts, actions, forks = [environment.reset(task).text], [], []
        while (listed := environment.position.actions()) and len(actions) < 30:
            forks.append((len(actions), environment.fork()))
            actions.append(rng.choice((*listed, "jump")))
            texts.append(environment.step(actions[-1]).text)
        for taken, fork in forks:
            assert [fork.step(action).text for action in actions[taken:]] == texts[taken + 1 :]
            assert fork.state_key() == environment.state_key()
            assert pickle.loads(pickle.dumps(fork.position)) == fork.position
        assert replay(world.make(), task, actions, texts).text == texts[-1]


@pytest.mark.parametrize("name", ["ezpoints", "numberline", "blackjack"])
def test_odd_actions_never_raise(name):
    rng, world = random.Random(0), WORLDS[name]
    words = (
        "+",
        "-",
        "*",
        "=",
        "hit",
        "stand",
        *map(str, range(12)),
        "",
        " ",
        "**",
        "9" * 5000,
        "(3)",
        "1/0",
        "\0",
        "HIT",
        "²",
    )
    environment, tasks = world.make(), world.tasks("L0", "train")
    before = random.getstate()
    for number in range(10_000):
        if number % 15 == 0:
            observation = environment.reset(tasks[rng.randrange(len(tasks))])
        action = rng.choice(words) if rng.random() < 0.8 else "".join(map(chr, rng.choices(range(1, 0x3000), k=3)))
        listed = observation.actions
        observation = environment.step(action)
        assert observation.admissible == (action in listed)
        assert observation.text
    assert random.getstate() == before, "the process's own generator is not touched"


@pytest.mark.parametrize("name", ["ezpoints", "numberline", "blackjack"])
def test_demonstrations_win(name):
    shown = asyncio.run(collect(WORLDS[name], 20, level="L0", horizon=30, prompt=Prompt(), tags="dense", slips=0.1))
    steps = [node for demonstration in shown for node in demonstration.tree.nodes]
    assert all(demonstration.tree.nodes[-1].success for demonstration in shown)
    explored = sum(node.mode == "explore" for node in steps) / len(steps)
    assert explored == 0 if name == "numberline" else 0.1 < explored < 0.8
