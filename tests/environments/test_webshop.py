"""WebShop on generated and hand-made shops: pages, goals, rewards, splits, the expert, and getting the official files."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import pickle
import random
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.common import progress
from spark_rl.contracts import Policy
from spark_rl.environments.check import check_world
from spark_rl.environments.registry import load_world
from spark_rl.environments.webshop import Webshop, WebshopEnvironment
from spark_rl.environments.webshop import fetch as fetching
from spark_rl.environments.webshop.analysis import terms
from spark_rl.environments.webshop.catalogue import Asked, Product, official, read_array
from spark_rl.environments.webshop.goals import Goal
from spark_rl.environments.webshop.index import IndexBuilder
from spark_rl.environments.webshop.nouns import find_nouns
from spark_rl.environments.webshop.pages import SEPARATED, START, Scene, apply, clickables, fields
from spark_rl.environments.webshop.rewards import colour, score, similar, title_score, type_score
from spark_rl.environments.webshop.shop import Generated, Shop, assemble, build, open_folder
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.prompting.parsing import parse
from spark_rl.types import Observation, Request, Task

pytest.importorskip("rapidfuzz", reason="texts are compared by rapidfuzz, of the extra webshop")

SMALL = Webshop(size="generated", products=60)
NOUNS = find_nouns("rule")


def product(asin: str = "B01", **fields: Any) -> Product:
    """A red or blue cotton shirt for $12.5."""
    values: dict[str, Any] = {
        "title": "Soft Cotton Shirt",
        "description": "A shirt.",
        "bullets": ("machine wash", " warm "),
        "prices": (12.5,),
        "options": (("color", ("red", "r.brown2070")), ("size", ("small", "9 | 10"))),
        "query": "shirts",
        "kind": "fashion",
        "categories": "Clothing › Men › Shirts",
        "attributes": ("long sleeve", "day comfort"),
        "instruction": "Find me day comfort shirts",
        "wanted": ("day comfort",),
    }
    return Product(asin, **(values | fields))


def shop_of(*products: Product) -> Shop:
    return assemble(Generated(0), products)


def goal_of(one: Product, *options: tuple[str, str], most: float = 20.0) -> Goal:
    return Goal(one, "Find me day comfort shirts", ("day comfort",), options, most)


# -- pages ------------------------------------------------------------------------------------------------------------


def test_an_episode_by_hand():
    shirt, other = product(), product("B02", title="Wool Hat", description="", options=(), prices=(5.0, 7.25))
    shop = shop_of(shirt, other)
    scene = Scene(shop, goal_of(shirt, ("color", "red"), ("size", "small")), per_page=1)
    pages = [START]
    for action in (
        "search[Shirt wool]", "click[next >]", "click[next >]", "click[< prev]", "click[< prev]", "click[b01]",
        "click[9 | 10]", "click[small]", "click[features]", "click[< prev]", "click[red]", "click[buy now]",
    ):  # fmt: skip
        after = apply(scene, pages[-1], action)
        assert after is not None, action
        pages.append(after)
    said = [list(fields(scene, page)) for page in pages]
    head = ["Instruction:", "Find me day comfort shirts", "Back to Search"]
    assert said[0] == ["WebShop", "Instruction:", "Find me day comfort shirts", "Search"]
    shown = ["B01", "Soft Cotton Shirt", "$12.5"]
    assert said[1] == [*head, "Page 1 (Total results: 2)", "Next >", *shown]
    hat = ["B02", "Wool Hat", "$5.0 to $7.25"]
    assert said[2] == [*head, "Page 2 (Total results: 2)", "< Prev", "Next >", *hat]
    assert said[3] == [*head, "Page 3 (Total results: 2)", "< Prev", "Next >"], "pages have no end"
    assert said[4:6] == said[2:0:-1]
    assert clickables(scene, pages[2]) == ("back to search", "< prev", "next >", "b02")
    options = ["color", "red", "r.brown2070", "size", "small", "9 | 10"]
    end = ["Soft Cotton Shirt", "Price: $12.5", "Rating: N.A.", "Description", "Features", "Reviews", "Buy Now"]
    assert said[6] == said[7] == said[8] == said[11] == [*head, "< Prev", *options, *end], "what is chosen is not shown"
    assert said[9] == [*head, "< Prev", "machine wash", "warm"]
    assert pages[-1].options == (("size", "small"), ("color", "red"))
    assert (pages[-1].page, said[-1][6], said[-1][8]) == ("done", "B01", '{"color": "red", "size": "small"}')


def test_a_click_on_what_is_not_there_does_nothing():
    scene = Scene(shop_of(product()), goal_of(product()))
    for action in ("click[b01]", "click[search]", "search", "search[]", "click", "Search[shirt]", "buy now", "", "x[y]"):
        assert apply(scene, START, action) is None
    results = apply(scene, START, "search[shirt]")
    assert results is not None
    assert apply(scene, results, "click[B01]") == apply(scene, results, "click[b01]") is not None
    assert apply(scene, results, "search[of the]") == START._replace(page="results"), "only stop words"
    item = apply(scene, results, "click[b01]")
    assert item is not None
    assert clickables(scene, item)[6:] == ("red", "r.brown2070", "small", "9 | 10")
    assert apply(scene, item, "click[green]") is None
    bought = apply(scene, item, "click[buy now]")
    assert bought is not None
    assert apply(scene, bought, "search[shirt]") is None
    assert clickables(scene, bought) == ()


def test_the_last_group_that_has_a_value_gets_it_and_going_back_forgets():
    shirt = product(options=(("color", ("white", "red")), ("sole", ("white", "black"))))
    scene = Scene(shop_of(shirt), goal_of(shirt))
    state = START
    for action in ("search[shirt]", "click[b01]", "click[red]", "click[white]"):
        state = apply(scene, state, action) or pytest.fail(action)
    assert state.options == (("color", "red"), ("sole", "white"))
    assert clickables(scene, state)[6:] == ("white", "red", "black")
    below = apply(scene, state, "click[description]")
    assert below is not None
    assert list(fields(scene, below))[2:] == ["Back to Search", "< Prev", "A shirt."]
    assert apply(scene, below, "click[< prev]") == state
    back = apply(scene, state, "click[< prev]")
    assert back is not None
    assert (back.page, back.options, back.hits) == ("results", (), state.hits)


def test_the_request_is_cut_out_or_kept_and_the_end_says_the_score():
    seen = {}
    for instruction in ("cut", "kept"):
        world = replace(SMALL, instruction=instruction)
        task = world.tasks("L0", "train")[0]
        seen[instruction] = [o.text for o in walk(world.make(), task, 6, random.Random(0))]
        assert (f"Instruction:{SEPARATED}{task.instruction}" in seen[instruction][1]) == (instruction == "kept")
    assert [text.replace(f"Instruction:{SEPARATED}{task.instruction}{SEPARATED}", "") for text in seen["kept"]] == seen[
        "cut"
    ]
    assert SMALL.unlimited() == replace(SMALL, instruction="kept")


def walk(environment: WebshopEnvironment, task: Task, steps: int, rng: random.Random) -> list[Observation]:
    seen = [environment.reset(task)]
    while not seen[-1].done and len(seen) <= steps:
        action = rng.choice(seen[-1].actions)
        seen.append(environment.step(action.replace("<your query>", task.instruction)))
    return seen


# -- search -----------------------------------------------------------------------------------------------------------


def test_scores_by_hand_and_ties_by_id():
    builder = IndexBuilder()
    for text in ("red shirt", "a red red hat", "the of", "red shirt"):
        builder.add(text)
    index = builder.finish(["b", "c", "d", "a"])
    # N 4, df(red) 3; three documents have terms, 7 in all, so the mean is 7 / 3.
    assert index.search("red shirt") == [3, 0, 1], "equal scores in the order of the ids"
    assert index.search("reds hat") == [1, 3, 0]
    assert index.search("") == index.search("the of") == index.search("unknown") == []
    assert index.search("red", most=1) == [1]


def test_terms_are_lucenes():
    assert terms("The Men's T-Shirts, 10.5 US: running") == ["men", "t", "shirt", "10.5", "us", "run"]
    assert terms("don't l.a. 3,000½ _") == ["don't", "l.a", "3,000"]
    assert terms("Ärzte 中文 👍🏽") == ["ärzte", "中", "文", "👍", "🏽"]


@settings(max_examples=60)
@given(st.text(alphabet="aeinst.,:'’0129 _-é中½", max_size=30))
def test_plain_and_full_patterns_agree(text):
    plain = text.encode("ascii", "ignore").decode()
    assert terms(plain) == [term for term in terms(plain + " 中") if term != "中"]


# -- rewards ----------------------------------------------------------------------------------------------------------


def test_the_original_cannot_win_what_names_a_colour_inside_a_longer_value():
    shirt = product()
    goal = goal_of(shirt, ("color", "r.brown2070"), ("size", "small"))
    buy = partial(score, goal, shirt, 12.5, ["r.brown2070", "small"], nouns=NOUNS)
    assert buy().total == 1
    assert buy(compat=True).total == pytest.approx(3 / 4)
    assert score(goal, shirt, 12.5, ["red"], nouns=NOUNS).total == pytest.approx(2 / 4)
    assert score(replace(goal, most=10.0), shirt, 12.5, ["r.brown2070", "small"], nouns=NOUNS).total == pytest.approx(3 / 4)


def test_kinds_by_hand():
    shirt = product()
    far = product("B02", title="Wool Hat", query="hats", categories="Home › Men", attributes=())
    assert type_score(shirt, shirt, 0.0) == 0
    assert type_score(shirt, shirt, 0.05) == 0.1
    assert type_score(shirt, far, 0.15) == 0.5
    assert type_score(shirt, far, 0.21) == 1
    assert type_score(shirt, replace(far, categories="Men › Clothing"), 0.15) == 1
    assert title_score(["a", "b", "b", "c"], ["b", "d"]) == 0.25
    assert title_score([], ["b"]) == 0.2
    goal = goal_of(shirt)
    assert score(goal, far, 5.0, [], nouns=NOUNS).total == 0, "no noun in common"
    assert score(goal, replace(far, title="Cotton Hat"), 5.0, [], nouns=NOUNS).total == pytest.approx(1 / 2)
    washed = replace(goal, attributes=("machine wash", "shirt", "nothing of it"))
    assert score(washed, shirt, 12.5, [], nouns=NOUNS).attributes == 2, "in the features and in the description"


def test_colours_and_likeness():
    assert (colour("r.brown2070"), colour("navy blue"), colour("plaid")) == ("brown", "blue", "plaid")
    assert similar("long sleeve", "sleeve long")
    assert not similar("long sleeve", "short leg")


def test_nouns_by_rule_file_and_model(tmp_path):
    assert list(NOUNS(product(title="The 2 Men's T-Shirts, 10.5 US"))) == ["men's", "t-shirts", "us"]
    file = tmp_path / "nouns.json"
    file.write_text(json.dumps({"B01": ["shirt"]}))
    nouns = find_nouns(str(file))
    assert list(nouns(product())) == ["shirt"]
    assert list(nouns(product("B02"))) == ["soft", "cotton", "shirt"]
    file.with_name("list.json").write_text("[]")
    for name, problem in (
        ("spacy:no_such_model", "no_such_model, which is not installed"),
        (str(tmp_path / "none.json"), "cannot be read"),
        (str(tmp_path / "list.json"), "must hold an object"),
    ):
        with pytest.raises(UsageError, match=problem):
            replace(SMALL, nouns=name).tasks("L0", "test")


# -- goals and splits ---------------------------------------------------------------------------------------------------


def test_goals_are_all_combinations_with_one_upper_price_a_product():
    shop = shop_of(product(), product("B02", options=(), instruction=None), product("B03", options=(), prices=(990.0,)))
    goals = shop.goals("synthetic")
    asked = [goals[index] for index in range(len(goals))]
    assert len(asked) == 5
    of_shirt = [goal for goal in asked if goal.product.asin == "B01"]
    wanted = itertools.product(("red", "r.brown2070"), ("small", "9 | 10"))
    assert sorted(goal.options for goal in of_shirt) == sorted((("color", c), ("size", s)) for c, s in wanted)
    assert len({goal.most for goal in of_shirt}) == 1
    assert of_shirt[0].most in (30, 40, 50)
    [plain] = [goal for goal in asked if goal.product.asin == "B03"]
    assert (plain.most, plain.instruction) == (1_000_000, "Find me day comfort shirts")
    with pytest.raises(UsageError, match="has no human goals"):
        shop.goals("human")


def test_human_goals_have_values_without_names():
    asked = (Asked("i need a red shirt.", ("day comfort",), ("red",)), Asked("nothing", (), ()))
    goals = shop_of(product(asked=asked)).goals("human")
    assert len(goals) == 1
    assert goals[0].instruction.startswith("i need a red shirt, and price lower than ")
    assert goals[0].options == (("", "red"),)


@pytest.mark.parametrize("split", ["canonical", "disjoint"])
def test_splits(split):
    world = replace(SMALL, split=split)
    tasks = {name: world.tasks("L0", name) for name in ("train", "dev", "test")}
    ids = [task.id for some in tasks.values() for task in some]
    total = len(world.shop().goals("synthetic"))
    assert sorted(ids) == sorted(f"synthetic/{index}" for index in range(total))
    owners = {
        name: {world.shop().goals("synthetic").owner(int(task.id.partition("/")[2])) for task in some}
        for name, some in tasks.items()
    }
    if split == "disjoint":
        assert not owners["test"] & owners["train"]
        assert not owners["dev"] & (owners["train"] | owners["test"])
        assert len(owners["test"]) == len(owners["dev"]) == round(60 * 60 / 415)
    else:
        quarter = total // 4
        assert [len(tasks[name]) for name in ("test", "dev")] == [quarter, quarter]
        assert [task.id for task in tasks["test"]] == [f"synthetic/{index}" for index in range(quarter)]
    assert world.tasks("L2", "dev") == tasks["dev"], "the levels are one"


def test_wrong_options_are_named(tmp_path, monkeypatch):
    for fields_, problem in (
        ({"size": "huge"}, 'unknown env.size "huge"'),
        ({"split": "random"}, 'unknown env.split "random"'),
        ({"goals": "mine"}, 'unknown env.goals "mine"'),
        ({"products": 20}, "env.products is 20: it must lie between 50 and 5000"),
        ({"per_page": 0}, "env.per_page is 0"),
    ):
        with pytest.raises(UsageError, match=problem):
            load_world("webshop", **fields_)
    monkeypatch.setenv("WEBSHOP_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="no WebShop catalogue in"):
        Webshop().tasks("L0", "test")
    with pytest.raises(UsageError, match=r"items_shuffle_1000.json is missing"):
        Webshop(size="small").tasks("L0", "test")
    for task_id in ("synthetic/9999", "synthetic/01", "human/0", "17", "other/1"):
        with pytest.raises(UsageError):
            SMALL.task(task_id)


# -- the world ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"split": "disjoint", "per_page": 3, "compat": True, "reward": "success"}])
def test_the_contract_holds(options):
    report = check_world(replace(SMALL, **options))
    assert report.passed, str(report)


@settings(max_examples=25)
@given(st.integers(0, 200), st.integers(0, 2**32))
def test_random_walks_fork_as_they_replay(index, seed):
    world, rng = SMALL, random.Random(seed)
    task = world.task(f"synthetic/{index}")
    environment = world.make()
    observation, actions, forks = environment.reset(task), [], []
    while not observation.done and len(actions) < 15:
        forks.append((pickle.loads(pickle.dumps(environment)), environment.fork(), list(actions)))
        actions.append(rng.choice(observation.actions).replace("<your query>", task.instruction))
        observation = environment.step(actions[-1])
        assert observation.admissible
        assert 0 <= observation.reward <= 1
        assert observation.success == (observation.reward == 1)
        assert len(set(observation.actions)) == len(observation.actions)
    for pickled, fork, before in forks:
        for action in actions[len(before) :]:
            last, same = fork.step(action), pickled.step(action)
            assert last.text == same.text
        assert last.text == observation.text
        assert fork.state_key() == pickled.state_key() == environment.state_key()


def test_reward_is_the_score_or_the_success_and_the_ceiling_is_told():
    task = SMALL.tasks("L0", "test")[0]
    for reward in ("score", "success"):
        environment = replace(SMALL, reward=reward).make()
        seen = [environment.reset(task)]
        asin = environment.scene.goal.product.asin
        for action in (f"search[{task.instruction}]", *["click[next >]"] * 5):
            seen.append(environment.step(action))
            if f"click[{asin}]" in seen[-1].actions:
                break
        seen += [environment.step(f"click[{asin}]"), environment.step("click[buy now]")]  # without its options
        assert 0 < seen[-1].progress["score"] < 1
        assert seen[-1].reward == (seen[-1].progress["score"] if reward == "score" else 0)
        assert (seen[-1].done, seen[-1].success, seen[-1].progress["ceiling"]) == (True, False, 1)


def test_a_hundred_thousand_odd_actions_raise_nothing():
    rng, world = random.Random(7), SMALL
    tasks, environment = world.tasks("L0", "train"), world.make()
    pieces = [
        "search[",
        "click[",
        "]",
        "[",
        "b01",
        "item 7",
        "< prev",
        "next >",
        "buy",
        "\n",
        "é",
        "",
        " ",
        "<r>",
        "中",
        "\ud800",
    ]
    observation = environment.reset(tasks[0])
    for number in range(100_000):
        if observation.done or number % 200 == 0:
            observation = environment.reset(rng.choice(tasks))
        action = "".join(rng.choices(pieces, k=rng.randrange(6)))
        if rng.random() < 0.1:
            action = rng.choice(observation.actions)
        observation = environment.step(action)
        assert observation.text


# -- the expert ---------------------------------------------------------------------------------------------------------


def played(world: Webshop, task: Task, policy: Policy, first: tuple[str, ...] = ()) -> tuple[bool, list[str]]:
    """Whether the policy wins after these first actions, and what it said."""
    environment = world.make()
    observation, history, said = environment.reset(task), [], []
    while not observation.done and len(history) < 20:
        if len(history) < len(first):
            action = first[len(history)]
        else:
            request = Request(task, (), observation, (len(history),), history=tuple(history))
            [[completion]] = asyncio.run(policy.sample([request]))
            said.append(completion.text)
            action = parse(completion.text).action
            assert action in observation.actions or (action.startswith("search[") and "search" in observation.actions[0])
        history.append(action)
        observation = environment.step(action)
    return observation.success, said


def test_the_expert_wins_every_goal_and_explores_by_rule():
    world = replace(SMALL, per_page=3)
    for index in range(0, 200, 7):
        task = world.task(f"synthetic/{index}")
        for tags in ("sparse", "dense"):
            won, said = played(world, task, world.expert(tags))
            assert won, (task, said)
            for step, text in enumerate(said):
                read = parse(text)
                assert read.well_formed
                opening = read.action in {f"click[{one.asin}]" for one in map(world.shop().products.__getitem__, range(60))}
                searching = opening or read.action.startswith("search[") or read.action == "click[next >]"
                if tags == "dense":
                    assert (read.mode == "explore") == searching
                elif read.mode == "explore":
                    assert searching
                    assert step > 0


@pytest.mark.parametrize(
    "first",
    [
        ("search[nothing of this]",),
        ("search[red]", "click[next >]", "click[next >]"),
        ("search[cotton shirt]", "click[next >]", "nonsense"),
    ],
)
def test_the_expert_goes_on_from_any_path(first):
    for index in (0, 50, 100):
        won, _ = played(SMALL, SMALL.task(f"synthetic/{index}"), SMALL.expert(), first)
        assert won


def test_a_beginners_mistake_opens_another_result_and_is_mended():
    task = SMALL.task("synthetic/3")
    expert = SMALL.expert()
    environment = SMALL.make()
    query = f"search[{task.instruction}]"
    environment.reset(task)
    observation = environment.step(query)
    wrong = expert.mistake(Request(task, (), observation, (1,), history=(query,)))
    assert wrong is not None
    action = parse(wrong.text).action
    assert action in observation.actions
    assert played(SMALL, task, expert, (query, action))[0]
    assert expert.mistake(Request(task, (), observation, (1,), history=())) is None


# -- files ----------------------------------------------------------------------------------------------------------------


def record(asin: str, **fields_: Any) -> dict[str, Any]:
    return {
        "name": "Shirt", "full_description": "", "pricing": "$1,010.99$2", "product_category": "A › B", "query": " Shirts ",
        "small_description": "one", "customization_options": {"Color": [{"value": " Red/Blue "}], "Fit": None},
        "asin": asin, "category": "fashion",
    } | fields_  # fmt: skip


def write(folder: Path, records: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "items_shuffle_1000.json").write_text(json.dumps(records))
    instruction = {"attributes": ["soft"], "instruction": "Find me shirts", "instruction_attributes": ["soft"]}
    (folder / "items_ins_v2_1000.json").write_text(json.dumps({"B01": instruction}))
    (folder / "items_human_ins.json").write_text("{}")


def test_records_become_products(tmp_path):
    write(
        tmp_path,
        [record("B01"), record("nan"), record("B0123456789"), record("B01"), record("B02", pricing=None)],
    )
    first, second = official(tmp_path, "small")
    assert first.prices == (1010.99, 2.0)
    assert first.tag == "$1010.99 to $2.0"
    assert first.options == (("color", ("red | blue",)),)
    assert (first.bullets, first.query, first.wanted) == (("one",), "shirts", ("soft",))
    assert (second.tag, second.attributes, second.instruction) == ("$100.0", ("DUMMY_ATTR",), None)


def test_a_shop_on_disk_is_the_shop_in_memory(tmp_path):
    kept = SMALL.shop()
    products = [kept.products[number] for number in range(len(kept.products))]
    build(tmp_path / "shop", products)
    stored = open_folder(Generated(60), tmp_path / "shop")
    assert [stored.products[number] for number in range(len(stored.products))] == products
    assert stored.prices.tolist() == kept.prices.tolist()
    goals = stored.goals("synthetic")
    assert [goals[index] for index in range(len(goals))] == [kept.goals("synthetic")[index] for index in range(len(goals))]
    for query in ("cotton shirt", "red", "made by house north", "nothing at all"):
        assert stored.search(query) == kept.search(query)
    (tmp_path / "shop" / "starts.npy").write_bytes(b"not numpy")
    with pytest.raises(EnvironmentFailure, match="delete it, and it will be built anew"):
        open_folder(Generated(60), tmp_path / "shop")


def test_an_official_shop_is_built_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "data", [record("B01"), record("B02")])
    catalogue = Webshop(data=str(tmp_path / "data")).catalogue()
    for _ in range(2):
        assert len(catalogue.open().products) == 2
    [kept] = (tmp_path / "cache" / "spark-rl" / "webshop").iterdir()
    write(tmp_path / "data", [record("B01"), record("B02"), record("B03")])
    assert len(catalogue.open().products) == 3
    assert kept.is_dir()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "no JSON array"),
        ('[{"asin": "B01"', "ends in the middle of a record"),
        ("[1]", "where a product should be"),
        ('[{"asin": "B01"}]', "damaged at product B01"),
        ("[{}]", "a record has no asin"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, problem):
    write(tmp_path, [])
    (tmp_path / "items_shuffle_1000.json").write_text(text)
    with pytest.raises(EnvironmentFailure, match=problem):
        list(official(tmp_path, "small"))


def test_a_long_array_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("spark_rl.environments.webshop.catalogue._CHUNK", 7)
    records = [{"asin": f"B{number}", "name": "é" * number} for number in range(30)]
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(records, indent=1, ensure_ascii=False), encoding="utf-8")
    assert list(read_array(tmp_path / "a.json")) == records


def test_fetch_takes_known_files_and_refuses_others(testdata, tmp_path):
    got = fetching.fetch(testdata / "webshop", tmp_path / "to", size="small", link=False, tell=progress.Quiet(None))
    assert (got.products, got.goals, got.unproven) == (1000, 415, ())
    assert (tmp_path / "to" / "items_human_ins.json").read_bytes() == (
        testdata / "webshop/items_human_ins.json"
    ).read_bytes()
    again = fetching.fetch(None, tmp_path / "to", size="small", link=False, tell=progress.Quiet(None))
    assert again.files == got.files, "what is in place is verified, not fetched"
    file = tmp_path / "to" / "items_ins_v2_1000.json"
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(UsageError, match="is damaged: its SHA-256"):
        fetching.fetch(tmp_path / "to", tmp_path / "other", size="small", link=False, tell=progress.Quiet(None))
    assert not (tmp_path / "other" / file.name).exists()
    (tmp_path / "to" / "SHA256SUMS").unlink()
    with pytest.raises(UsageError, match="is damaged: its SHA-256"):
        fetching.fetch(tmp_path / "to", tmp_path / "other", size="small", link=False, tell=progress.Quiet(None))
    file.write_bytes(data[:-1])
    with pytest.raises(UsageError, match="147,098 bytes, not 147,099"):
        fetching.fetch(tmp_path / "to", tmp_path / "other", size="small", link=False, tell=progress.Quiet(None))
    file.unlink()
    with pytest.raises(UsageError, match=r"lacks items_ins_v2_1000\.json"):
        fetching.fetch(tmp_path / "to", tmp_path / "third", size="small", link=False, tell=progress.Quiet(None))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


def test_fetch_downloads_what_is_missing(tmp_path, monkeypatch):
    # The large files: nothing is known of them beforehand, so what came is remembered.
    write(tmp_path / "web", [record("B01")])
    numbers = {"items_shuffle.json": "items_shuffle_1000.json", "items_ins_v2.json": "items_ins_v2_1000.json"}
    monkeypatch.setattr(fetching, "_NUMBERS", numbers | {"items_human_ins.json": "page.html"})
    (tmp_path / "web" / "page.html").write_text("<html>too many have asked for this file</html>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        get = partial(
            fetching.fetch,
            None,
            tmp_path / "to",
            size="full",
            link=False,
            tell=progress.Quiet(None),
            address=f"http://127.0.0.1:{server.server_port}/{{id}}",
        )
        try:
            with pytest.raises(EnvironmentFailure, match="answered by a web page"):
                get()
            (tmp_path / "to" / "items_human_ins.json").symlink_to(tmp_path / "web" / "items_human_ins.json")
            monkeypatch.setattr(fetching, "_KNOWN", {})
            found = get()
            monkeypatch.setattr(fetching, "_NUMBERS", dict.fromkeys(numbers, "nothing-there"))
            (tmp_path / "to" / "items_shuffle.json").unlink()
            with pytest.raises(EnvironmentFailure, match=r"could not be downloaded \(HTTP Error 404"):
                get()
        finally:
            server.shutdown()
    assert (found.products, found.goals) == (1, 1)
    assert found.unproven == ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json")
    sums = {line[66:]: line[:64] for line in (tmp_path / "to" / "SHA256SUMS").read_text().splitlines()}
    shipped = (tmp_path / "web" / "items_shuffle_1000.json").read_bytes()
    assert sums["items_shuffle.json"] == hashlib.sha256(shipped).hexdigest()
    assert any("no published hash is known" in remark for remark in found.remarks())
