"""The shop as pages: an immutable state, one function for all actions, and the text and clickable words of each page.

Invariants
----------
* A state is a small value: a fork shares it and costs nothing, and no fork can disturb another.
* Observations and clickable words are the original's to the last character. As in the original, no page shows the options
  that are chosen.
* `search[WORDS]` is accepted on every page, as in the original, though only the first page has a search bar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from spark_rl.environments.webshop.catalogue import Product
from spark_rl.environments.webshop.goals import Goal
from spark_rl.environments.webshop.shop import Shop

__all__ = ["SEPARATED", "START", "Scene", "State", "apply", "choose", "clickables", "fields", "shown_hits"]

SEPARATED = " [SEP] "
"""Text between the fields of an observation."""
Options = tuple[tuple[str, str], ...]
"""Names of groups, and the value that is chosen from each."""
_ACTION = re.compile(r"(.+)\[(.+)\]")
_BACK, _BEFORE, _NEXT, _BUY = "back to search", "< prev", "next >", "buy now"
_SUBPAGES: tuple[Literal["description", "features", "reviews"], ...] = ("description", "features", "reviews")


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The fixed part of a task: the shop and the goal."""

    shop: Shop
    goal: Goal
    per_page: int = 10
    """Most products on a page of results."""


class State(NamedTuple):
    """The changing part of an episode."""

    page: Literal["index", "results", "item", "description", "features", "reviews", "done"]
    hits: tuple[int, ...] = ()
    """Results of the latest search, best first."""
    number: int = 1
    """Number of the page of results."""
    product: int = -1
    """The product whose page, or a page below it, is open."""
    options: Options = ()
    """The chosen options, in the order of the first choice in each group."""


START = State("index")


def apply(scene: Scene, state: State, action: str) -> State | None:
    """The state after an action, or None where the action is unknown or does not apply."""
    match = _ACTION.match(action)
    if match is None or state.page == "done":
        return None
    name, argument = match[1], match[2].lower()
    if name == "search":
        return State("results", scene.shop.search(argument))
    if name != "click" or argument == "search" or argument not in clickables(scene, state):
        return None
    return _click(scene, state, argument)


def _click(scene: Scene, state: State, word: str) -> State:
    if word == _BUY:
        return state._replace(page="done")
    if word == _BACK:
        return START
    if state.page == "results":
        if word in (_NEXT, _BEFORE):
            return state._replace(number=state.number + (1 if word == _NEXT else -1))
        product = next(hit for hit in shown_hits(scene, state) if scene.shop.products[hit].asin.lower() == word)
        return state._replace(page="item", product=product)
    if word == _BEFORE:
        if state.page == "item":
            return state._replace(page="results", product=-1, options=())
        return state._replace(page="item")
    if word in _SUBPAGES:
        return state._replace(page=word)
    return state._replace(options=choose(scene.shop.products[state.product], state.options, word))


def choose(product: Product, options: Options, word: str) -> Options:
    """The chosen options after a click on a value, which replaces the choice in the last group that has this value."""
    group = [name for name, values in product.options if word in values][-1]
    return tuple({**dict(options), group: word}.items())


def shown_hits(scene: Scene, state: State) -> tuple[int, ...]:
    """The products on the open page of results."""
    start = (state.number - 1) * scene.per_page
    return state.hits[start : start + scene.per_page]


def clickables(scene: Scene, state: State) -> tuple[str, ...]:
    """The clickable words, in the order of the page; `search` stands for the search bar."""
    match state.page:
        case "index":
            return ("search",)
        case "done":
            return ()
        case "results":
            before = (_BEFORE,) if state.number > 1 else ()
            asins = (scene.shop.products[hit].asin.lower() for hit in shown_hits(scene, state))
            return (_BACK, *before, _NEXT, *asins)
        case "item":
            values = (value for _, values in scene.shop.products[state.product].options for value in values)
            return tuple(dict.fromkeys((_BACK, _BEFORE, *_SUBPAGES, _BUY, *values)))
        case _:
            return (_BACK, _BEFORE)


def fields(scene: Scene, state: State, score: float = 0.0) -> Iterator[str]:
    """The text of a page, field by field.

    Args:
        scene: shop and goal.
        state: the page.
        score: score of the purchase, for the last page.
    """
    products, goal = scene.shop.products, scene.goal
    if state.page == "done":
        yield from _bought(products[state.product], state, score)
        return
    if state.page == "index":
        yield from ("WebShop", "Instruction:", goal.instruction.strip(), "Search")
        return
    yield from ("Instruction:", goal.instruction.strip(), "Back to Search")
    if state.page == "results":
        yield f"Page {state.number} (Total results: {len(state.hits)})"
        yield from ("< Prev", "Next >") if state.number > 1 else ("Next >",)
        for hit in shown_hits(scene, state):
            product = products[hit]
            yield from (product.asin, product.title.strip(), product.tag)
        return
    yield "< Prev"
    product = products[state.product]
    if state.page == "item":
        for name, values in product.options:
            yield from (name, *values)
        yield from (product.title.strip(), f"Price: {product.tag}", "Rating: N.A.")
        yield from ("Description", "Features", "Reviews", "Buy Now")
    elif state.page == "description" and product.description:
        yield product.description.strip()
    elif state.page == "features":
        yield from (bullet.strip() for bullet in product.bullets)  # also an empty bullet


def _bought(product: Product, state: State, score: float) -> Iterator[str]:
    """The page after a purchase, with the fields that the original leaves empty there."""
    yield from ("Thank you for shopping with us!", "Your code:", "None", "(Paste it in your MTurk interface.)")
    yield from ("Purchased", "asin", product.asin, "options", json.dumps(dict(sorted(state.options))), "attrs", "None")
    yield from ("category", "None", "query", "None", "product category", "None")
    yield from ("Target", "asin", "options", "attrs", "price upper", "instuction text", "category")
    yield from ("product category", "query", "Goal", "None", "Reward")
    yield from ("Your score (min 0.0, max 1.0)", str(score), "Reward Details", "None")
