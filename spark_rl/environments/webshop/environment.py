"""An episode of WebShop: a task's scene, and the state of its pages.

Invariants
----------
* `step` accepts any string; an action that the page does not offer changes nothing, and the observation is the same page.
* The task is solved when the purchase has score 1. `Observation.progress` has the score itself, and `ceiling`, which is 1
  for goals that can be reached at all: the success rate cannot exceed the mean of `ceiling`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from spark_rl.environments.webshop.nouns import find_nouns
from spark_rl.environments.webshop.pages import SEPARATED, START, Options, Scene, State, apply, choose, clickables, fields
from spark_rl.environments.webshop.rewards import fitting, score
from spark_rl.errors import EnvironmentFailure
from spark_rl.types import Observation, Task

__all__ = ["Rules", "WebshopEnvironment", "winnable", "worth"]


@dataclass(frozen=True)
class Rules:
    """Settings of rewards and observations; see the fields of `Webshop`."""

    compat: bool = False
    nouns: str = "rule"
    reward: Literal["score", "success"] = "score"
    instruction: Literal["cut", "kept"] = "cut"


def worth(scene: Scene, product: int, options: Options, rules: Rules) -> float:
    """The score of the purchase of a product with these options."""
    shop, chosen = scene.shop, [value for _, value in options]
    bought, price = shop.products[product], float(shop.prices[product])
    return score(scene.goal, bought, price, chosen, nouns=find_nouns(rules.nouns), compat=rules.compat).total


def winnable(scene: Scene, product: int, rules: Rules) -> bool:
    """Whether the purchase of the goal's own product, with the goal's own options, has score 1."""
    options: Options = ()
    for word in fitting(scene.goal):
        options = choose(scene.goal.product, options, word)
    return worth(scene, product, options, rules) == 1


class WebshopEnvironment:
    """One episode, made by `Webshop.make`."""

    fork_cost: Literal["cheap", "replay"] = "cheap"

    def __init__(self, scene_of: Callable[[Task], tuple[Scene, bool]], rules: Rules) -> None:
        self._scene_of, self._rules = scene_of, rules
        self._scene: Scene | None = None
        self._winnable = False
        self._state = START
        self._kind = ""
        """Kind of the last action that applied, `search` or `click`."""

    def reset(self, task: Task) -> Observation:
        """Start the task; the first observation is the page with the search bar.

        Raises:
            UsageError: the task is not one of this world's.
        """
        self._scene, self._winnable = self._scene_of(task)
        self._state, self._kind = START, ""
        return self._observe()

    def step(self, action: str) -> Observation:
        """Carry out one action; one that does not apply changes nothing, `state_key` included."""
        after = apply(self._here(), self._state, action)
        if after is None:
            return self._observe(admissible=False)
        self._state, self._kind = after, action.partition("[")[0]
        return self._observe()

    def fork(self) -> WebshopEnvironment:
        """An independent continuation, which shares the immutable state."""
        other = WebshopEnvironment(self._scene_of, self._rules)
        other._scene, other._winnable, other._state, other._kind = self._scene, self._winnable, self._state, self._kind
        return other

    def state_key(self) -> str:
        """Kind of the last action that applied, the page, and the chosen options, which the page does not show."""
        self._here()
        return "|".join((self._kind, self._text(0.0), *(f"{name}={value}" for name, value in sorted(self._state.options))))

    def close(self) -> None:
        """Nothing to release."""

    @property
    def state(self) -> State:
        """The present state of the episode."""
        return self._state

    @property
    def scene(self) -> Scene:
        """Shop and goal.

        Raises:
            EnvironmentFailure: before `reset`.
        """
        return self._here()

    def _here(self) -> Scene:
        if self._scene is None:
            raise EnvironmentFailure("the webshop environment was asked for a step before reset(task)")
        return self._scene

    def _text(self, total: float) -> str:
        scene = self._here()
        text = SEPARATED.join(fields(scene, self._state, total))
        if self._rules.instruction == "kept":
            return text
        return text.replace(f"Instruction:{SEPARATED}{scene.goal.instruction.strip()}{SEPARATED}", "", 1)

    def _observe(self, *, admissible: bool = True) -> Observation:
        scene, done = self._here(), self._state.page == "done"
        total = worth(scene, self._state.product, self._state.options, self._rules) if done else 0.0
        won = total == 1
        return Observation(
            text=self._text(total),
            listing=partial(_actions, scene, self._state),
            reward=(total if self._rules.reward == "score" else float(won)) if admissible else 0.0,
            done=done,
            success=won,
            admissible=admissible,
            progress={"score": total, "ceiling": float(self._winnable)},
        )


def _actions(scene: Scene, state: State) -> tuple[str, ...]:
    """The actions of a page: a search where there is a search bar, and all clicks."""
    return tuple("search[<your query>]" if word == "search" else f"click[{word}]" for word in clickables(scene, state))
