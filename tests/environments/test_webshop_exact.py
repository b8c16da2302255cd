"""WebShop on the real small catalogue against recordings of the original: walks, goals, prices and search results."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Growth
from spark_rl.environments.registry import load_world
from spark_rl.environments.replay import trace
from spark_rl.environments.webshop import Webshop
from spark_rl.environments.webshop.catalogue import Product
from spark_rl.environments.webshop.environment import Rules, winnable
from spark_rl.environments.webshop.goals import Goal
from spark_rl.environments.webshop.pages import SEPARATED, START, Scene, apply, clickables, fields
from spark_rl.environments.webshop.rewards import score, title_score, type_score
from spark_rl.environments.webshop.shop import Official, Shop, open_shop
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Sampling, TreeShape

pytest.importorskip("rapidfuzz", reason="texts are compared by rapidfuzz, of the extra webshop")


@pytest.fixture(scope="session")
def shop(testdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return open_shop(Official(str(testdata / "webshop"), "small"))  # and kept: worlds below get this one


def vectors(testdata: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(testdata / "vectors" / f"webshop_{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def digest(rows: list[Any]) -> str:
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def limit(goal: Goal) -> float:
    return 1000000 if goal.most == 1_000_000 else goal.most


def test_goals_and_prices_are_the_originals(shop: Shop, testdata: Path):
    recorded, *some = vectors(testdata, "goals")
    goals = [shop.goals("synthetic")[index] for index in range(len(shop.goals("synthetic")))]
    rows = [[goal.instruction, goal.product.asin, [list(pair) for pair in goal.options], limit(goal)] for goal in goals]
    assert (len(rows), len(shop.products)) == (recorded["goals"], recorded["products"])
    assert digest(rows) == recorded["goals_sha256"]
    assert digest(sorted(rows)) == recorded["goals_sorted_sha256"]
    assert digest(sorted([row[1], row[2]] for row in rows)) == recorded["no_price_sha256"]
    prices = sorted([shop.products[number].asin, float(price)] for number, price in enumerate(shop.prices))
    assert digest(prices) == recorded["prices_sha256"]
    for one in some:
        goal = goals[one["index"]]
        assert (goal.instruction, goal.product.asin, list(goal.attributes)) == (
            one["instruction"],
            one["asin"],
            one["attributes"],
        )
        assert (dict(goal.options), goal.most) == (dict(one["options"]), one["price_upper"])
        assert shop.prices[shop.goals("synthetic").owner(one["index"])] == one["product_price"]
    assert len(shop.goals("human")) == 13


def test_150_searches_give_lucenes_lists(shop: Shop, testdata: Path):
    recorded = vectors(testdata, "search")
    assert len(recorded) == 150
    for one in recorded:
        assert [shop.products[hit].asin for hit in shop.search(one["query"])] == one["hits"], one["query"]


def test_recorded_walks_repeat_to_the_last_character(shop: Shop, testdata: Path):
    steps = bought = 0
    for episode in vectors(testdata, "episodes"):
        scene = Scene(shop, shop.goals("synthetic")[episode["goal_index"]])
        state = START
        assert SEPARATED.join(fields(scene, state)) == episode["initial"]["observation"]
        assert list(clickables(scene, state)) == episode["initial"]["clickables"]
        for step in episode["steps"]:
            state = apply(scene, state, step["action"]) or state
            total = worth(scene, state, episode["purchase"]) if step["done"] else 0.0
            assert SEPARATED.join(fields(scene, state, total)) == step["observation"], step["action"]
            assert list(clickables(scene, state)) == step["clickables"]
            assert ((state.page == "index"), total, (state.page == "done")) == (
                step["has_search_bar"],
                step["reward"],
                step["done"],
            )
            steps += 1
            bought += step["done"]
    assert (steps, bought > 50) == (494, True)


def worth(scene: Scene, state: Any, purchase: dict[str, Any]) -> float:
    """The reward of the purchase, with the nouns of the recording, its parts compared."""
    product, info = scene.shop.products[state.product], purchase["info"]
    nouns = {scene.goal.product.asin: purchase["nouns_goal"], product.asin: purchase["nouns_bought"]}

    def of(one: Product) -> list[str]:
        return nouns[one.asin]

    chosen = [value for _, value in state.options]
    found = score(scene.goal, product, float(scene.shop.prices[state.product]), chosen, nouns=of, compat=True)
    assert (product.asin, dict(state.options)) == (purchase["asin"], purchase["options"])
    assert float(scene.shop.prices[state.product]) == purchase["price"]
    assert title_score(of(scene.goal.product), of(product)) == pytest.approx(info["title_score"], abs=1e-11)
    assert (found.kind, found.price) == (info["r_type"], info["r_price"])
    assert type_score(scene.goal.product, product, info["title_score"]) == info["r_type"]
    return found.total


def test_replaying_through_the_world_gives_what_the_original_wrote(shop: Shop, testdata: Path, tmp_path: Path):
    episodes = vectors(testdata, "episodes")
    nouns: dict[str, list[str]] = {}
    for episode in episodes:
        if purchase := episode["purchase"]:
            nouns[episode["goal"]["asin"]], nouns[purchase["asin"]] = purchase["nouns_goal"], purchase["nouns_bought"]
    (tmp_path / "nouns.json").write_text(json.dumps(nouns))
    world = Webshop(data=str(testdata / "webshop"), compat=True, nouns=str(tmp_path / "nouns.json"))
    assert world.shop() is shop
    for episode in episodes:
        task = world.task(f"synthetic/{episode['goal_index']}")
        assert task.instruction == episode["goal"]["instruction"]
        first, *steps = trace(world.unlimited(), task, [step["action"] for step in episode["steps"]])
        assert first["observation"] == episode["initial"]["observation"]
        for found, step in zip(steps, episode["steps"], strict=True):
            expected = ["search[<your query>]" if word == "search" else f"click[{word}]" for word in step["clickables"]]
            assert found["actions"] == expected
            assert (found["observation"], found["reward"], found["done"]) == (
                step["observation"],
                step["reward"],
                step["done"],
            )
            assert found["success"] == (step["reward"] == 1)


def test_458_goals_cannot_be_won_as_the_original_compares_and_none_otherwise(shop: Shop):
    goals = shop.goals("synthetic")
    for compat, lost in ((True, 458), (False, 0)):
        rules = Rules(compat=compat)
        won = sum(winnable(Scene(shop, goals[index]), goals.owner(index), rules) for index in range(len(goals)))
        assert len(goals) - won == lost


def test_splits_of_the_small_catalogue(shop: Shop, testdata: Path):
    for split, sizes in (("canonical", (5410, 1000, 500)), ("disjoint", (4538, 698, 1674))):
        world: Any = load_world("webshop", data=str(testdata / "webshop"), split=split)
        assert tuple(len(world.tasks("L0", name)) for name in ("train", "dev", "test")) == sizes
    human = Webshop(data=str(testdata / "webshop"), goals="human")
    assert [len(human.tasks("L0", name)) for name in ("train", "dev", "test")] == [7, 3, 3]
    assert human.about().endswith("ceiling: 3 of 3 test goals can be won (100.0%)")


def test_the_expert_wins_nearly_every_goal(shop: Shop, testdata: Path):
    world = Webshop(data=str(testdata / "webshop"))
    expert, tasks = world.expert(), world.tasks("L0", "test")[::5]
    growth = Growth(TreeShape(budget=1, roots=1, horizon=20), Chains(), Prompt(), Sampling())
    forest = asyncio.run(grow_forest(tasks, world, expert, growth, seed=0))
    wins = sum(tree.nodes[-1].success for tree in forest)
    assert wins >= 0.99 * len(tasks)
    nodes = [node for tree in forest for node in tree.nodes]
    assert all(node.admissible and node.well_formed for node in nodes)
    assert 0.1 < sum(node.mode == "explore" for node in nodes) / len(nodes) < 0.3
