"""What experts that search have in common: what a decision is, when it is said to explore, and a household task's plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion

__all__ = ["Decision", "plan", "said"]


@dataclass(frozen=True)
class Decision:
    """What an expert does, why, and whether that was a search, and an open choice."""

    action: str
    reason: str
    search: bool = False
    """What is needed is not located yet."""
    open_choice: bool = False
    """Where to look is open: none of the places left weighs more than the others together."""


def said(decision: Decision, tags: Literal["sparse", "dense"], *, first: bool) -> Completion:
    """The answer that a decision is, in its mode.

    `dense`: every step of a search explores, opening doors included. `sparse`: the pivots, where the next place to look is
    an open choice, except the first step, as forks there would spend the whole budget on the start. All others think.
    """
    explore = decision.search if tags == "dense" else decision.open_choice and not first
    return Completion(respond("explore" if explore else "think", decision.reason, decision.action))


def plan(kind: str, thing: str, place: str) -> str:
    """The steps of a household task in words.

    Args:
        kind: place, two, clean, heat, cool or light.
        thing: the object with its article.
        place: where it goes, as in `on a desk`; for `light` the lamp, as in `under a desklamp`.
    """
    middle = {"light": [f"look at it {place}"], "two": [f"put it {place}", "do the same with another one"]}
    treated = [f"{kind} it"] if kind in ("clean", "heat", "cool") else []
    steps = [f"find {thing}", *treated, *middle.get(kind, [f"put it {place}"])]
    return " ".join(f"Step {number}: {step}." for number, step in enumerate(steps, start=1))
