"""The common parts of experts that search: a decision, the mode of its completion, and the plan of a household task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion

__all__ = ["Decision", "completion", "plan"]


@dataclass(frozen=True)
class Decision:
    """One step of an expert: the action, its reason, and whether it searches."""

    action: str
    reason: str
    search: bool = False
    """Whether the step searches for something whose place is not known yet."""
    open_choice: bool = False
    """Whether it is open where to search: no remaining place is likelier than all others together."""


def completion(decision: Decision, tags: Literal["sparse", "dense"], *, first: bool) -> Completion:
    """The completion of a decision, in explore or think mode.

    Args:
        decision: the decision.
        tags: `dense`: every step of a search is in explore mode, also one that opens a door. `sparse`: only pivots are,
            the steps where the next place to search is an open choice. All other steps are in think mode.
        first: whether this is the first step of the episode, which is never a sparse pivot: forks there would spend the
            whole budget on the start.
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
