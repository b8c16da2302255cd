"""An expert that shops: it knows the goal's product, and its reasons name only what a customer can see.

Invariants
----------
* A decision depends on the task and the path alone. The expert plays the path again in an environment of its own, so it
  continues the path of any other policy.
* Searches consist of words of the request. The expert uses its knowledge of the product only to choose the search and the
  result to open. Reasons name the request and the contents of the page.

The expert searches with the part of the request that lists the product on the earliest page, turns pages until the product
appears, opens it, chooses the options, and buys.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from spark_rl.environments.searching import Decision, completion
from spark_rl.environments.webshop.environment import WebshopEnvironment
from spark_rl.environments.webshop.pages import Scene, State, shown_hits
from spark_rl.environments.webshop.rewards import fitting
from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Request

__all__ = ["ShoppingExpert", "queries"]

_OPENING = re.compile(
    r"^(?:find me|i am looking for|i'm looking for|i need|i want|looking for)\s+(?:an?\s+)?", re.IGNORECASE
)
_PRICE = re.compile(r",? and price lower than [\d.]+ dollars$")
_OPTIONS = re.compile(r" with [\w ]+: .*$")


def queries(instruction: str) -> tuple[str, ...]:
    """The searches for a request, shortest first: without options and price, without price, and the whole request.

    >>> queries("Find me soft rugs with color: red, and price lower than 30.00 dollars")[:2]
    ('soft rugs', 'soft rugs with color: red')
    """
    whole = _OPENING.sub("", instruction).lower()
    cheap = _PRICE.sub("", whole)
    return tuple(dict.fromkeys((_OPTIONS.sub("", cheap), cheap, whole, instruction.lower())))


@dataclass
class ShoppingExpert:
    """Plays WebShop. `tags` says which steps are in explore mode: see `searching.completion`.

    A search is what leads to a product's page: the query, the turning of pages and the opening of a result. Open choices are
    queries (but for a path's first step) and which of several results to open, or whether to turn the page.
    """

    make: Callable[[], WebshopEnvironment]
    """Makes the environment in which the path is played again."""
    tags: Literal["sparse", "dense"] = "sparse"
    """Which steps are in explore mode: see `searching.completion`."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The one decision for each request, for all its samples."""
        return [[self._answer(request)] * request.n for request in requests]

    def mistake(self, request: Request) -> Completion | None:
        """A beginner's mistake, for demonstrations of how to recover: to open a wrong result of the page.

        Returns:
            None where the page has no wrong result.
        """
        scene, state = self._recall(request)
        others = [hit for hit in shown_hits(scene, state) if scene.shop.products[hit].asin != scene.goal.product.asin]
        if state.page != "results" or not others:
            return None
        return Completion(respond("think", *_opening(scene, random.Random(request.seeds[0]).choice(others))))

    def _answer(self, request: Request) -> Completion:
        scene, state = self._recall(request)
        return completion(_decide(scene, state), self.tags, first=not request.history)

    def _recall(self, request: Request) -> tuple[Scene, State]:
        environment = self.make()
        environment.reset(request.task)
        for action in request.history:
            environment.step(action)
        return environment.scene, environment.state


def _decide(scene: Scene, state: State) -> Decision:
    match state.page:
        case "index":
            return _search(scene)
        case "results":
            return _among_results(scene, state)
        case "item":
            return _on_the_page(scene, state)
        case _:
            return Decision("click[< prev]", "I have read this, so I go back.")


def _search(scene: Scene) -> Decision:
    """The shortest query that lists the product on the earliest page."""
    best = min(queries(scene.goal.instruction), key=lambda query: _page(scene, scene.shop.search(query)))
    return Decision(f"search[{best}]", f"I look for {queries(scene.goal.instruction)[0]}.", search=True, open_choice=True)


def _page(scene: Scene, hits: Sequence[int]) -> float:
    """Number of the page of results that lists the product; infinite where none does."""
    places = (place for place, hit in enumerate(hits) if scene.shop.products[hit].asin == scene.goal.product.asin)
    return next((place // scene.per_page + 1.0 for place in places), float("inf"))


def _among_results(scene: Scene, state: State) -> Decision:
    page, shown = _page(scene, state.hits), shown_hits(scene, state)
    if page == float("inf"):
        return Decision("click[back to search]", "None of these fits, so I search again.", search=True)
    if page != state.number:
        turn = "next >" if page > state.number else "< prev"
        return Decision(f"click[{turn}]", "None of these fits, so I turn the page.", search=True, open_choice=True)
    product = next(hit for hit in shown if scene.shop.products[hit].asin == scene.goal.product.asin)
    reason, action = _opening(scene, product)
    return Decision(action, reason, search=True, open_choice=len(shown) > 1)


def _opening(scene: Scene, product: int) -> tuple[str, str]:
    """The reason and the action that opens a result."""
    result = scene.shop.products[product]
    return f"The {result.title.strip()} may fit.", f"click[{result.asin.lower()}]"


def _on_the_page(scene: Scene, state: State) -> Decision:
    if scene.shop.products[state.product].asin != scene.goal.product.asin:
        return Decision("click[< prev]", "This does not fit, so I go back.", search=True)
    missing = next(_missing(scene, state), None)
    if missing is not None:
        return Decision(f"click[{missing}]", f"I choose {missing}.")
    return Decision("click[buy now]", "All is chosen, so I buy it.")


def _missing(scene: Scene, state: State) -> Iterator[str]:
    """The goal's option values that are not chosen yet."""
    chosen = {value for _, value in state.options}
    return (value for value in fitting(scene.goal) if value not in chosen)
