"""An expert that searches: it knows the shares of the catalogue and its observations, and nothing else.

Invariants
----------
* A decision depends on the observations and actions of the path and on the sample's seed. The expert never reads hidden
  state.
* Reasons are few, short sentences.

The expert derives a belief from the observations of the path. A request has no past observations, so the expert plays the
actions again in an environment of its own. It therefore has no memory, and continues the path of any other policy. The next
place to search is drawn in proportion to the probability of each place, so that demonstrations are varied and sensible, and
RL can improve on them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from spark_rl.contracts import Environment
from spark_rl.environments.household.catalogue import CONDITIONS, LAMP, TOOLS, Condition, a, into, likelihood
from spark_rl.environments.household.houses import Goal
from spark_rl.environments.searching import Decision, completion
from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Request

__all__ = ["Expert"]

_CONDITIONS = {condition.adjective: condition for condition in CONDITIONS}
_SEEN = re.compile(rf"\ban? (?:({'|'.join(_CONDITIONS)}) )?([a-z]+ \d+)")


@dataclass
class _Belief:
    """What an agent knows from the observations of a path."""

    names: tuple[str, ...]
    """All receptacles."""
    at: str = ""
    """Receptacle at which the agent stands; empty at the start."""
    seen: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Receptacle whose contents the agent has seen -> the objects that lie there now."""
    closed: set[str] = field(default_factory=set[str])
    """Receptacles that are closed, as far as the agent knows."""
    held: str = ""
    treated: str = ""
    """The last treatment of the object in hand."""
    condition: dict[str, Condition] = field(default_factory=dict[str, Condition])

    def read(self, text: str) -> None:
        """Update the belief by the answer to an action."""
        if text.startswith(("You are at ", "You open ")):
            self.at = _name(text.split(" ")[2 if text.startswith("You open ") else 3 :])
            if text.endswith("It is closed."):
                self.closed.add(self.at)
                return
            self.closed.discard(self.at)
            things = _SEEN.findall(text)
            self.seen[self.at] = [name for _, name in things]
            self.condition |= {name: _CONDITIONS[adjective] for adjective, name in things if adjective}
        elif text.startswith("You close "):
            self.closed.add(self.at)
        elif text.startswith("You take "):
            self.held, self.treated = _name(text.split(" ")[2:]), ""
            self.seen[self.at].remove(self.held)
        elif text.startswith("You put "):
            self.seen[self.at].append(self.held)
            self.held = ""
        elif text.startswith(tuple(f"You {verb} " for verb in TOOLS)):
            self.treated = text.split(" ")[1]

    def places_of(self, noun: str) -> list[str]:
        """Receptacles with a thing of this noun, as far as the agent knows."""
        return [place for place, names in self.seen.items() if any(_noun(name) == noun for name in names)]

    def unsearched(self) -> list[str]:
        """Receptacles whose contents the agent has not seen, in the order of the first observation."""
        return [name for name in self.names if name not in self.seen]


def _name(words: Sequence[str]) -> str:
    return " ".join(words[:2]).rstrip(".")


def _noun(name: str) -> str:
    return name.split(" ")[0]


def _reason_to_take(noun: str) -> str:
    return f"I need {a(noun)}. Here is one, so I take it."


@dataclass
class Expert:
    """An expert for the household that decides from observations."""

    make: Callable[[], Environment]
    """Makes the environment in which the path is played again."""
    tags: Literal["sparse", "dense"] = "sparse"
    """Which steps are in explore mode: see `searching.completion`."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """One decision for each seed of each request."""
        return [self._answers(request) for request in requests]

    def mistake(self, request: Request) -> Completion | None:
        """A beginner's mistake, for demonstrations of how to recover: to take the wanted object where it does not lie.

        Returns:
            None where the expert does not search, or has not seen the contents of this receptacle.
        """
        belief, goal = self._recall(request), Goal.read(request.task.instruction)
        if not _Mind(belief, goal, random.Random(0)).decide().search or belief.at not in belief.seen:
            return None
        if belief.held:
            return Completion(respond("think", f"Now I turn on the {LAMP}.", f"use {LAMP} 1"))
        return Completion(respond("think", _reason_to_take(goal.object), f"take {goal.object} 1 from {belief.at}"))

    def _answers(self, request: Request) -> list[Completion]:
        belief, goal = self._recall(request), Goal.read(request.task.instruction)
        answers: list[Completion] = []
        for seed in request.seeds:
            decision = _Mind(belief, goal, random.Random(seed)).decide()
            answers.append(completion(decision, self.tags, first=not request.history))
        return answers

    def _recall(self, request: Request) -> _Belief:
        environment = self.make()
        first = environment.reset(request.task).text
        belief = _Belief(tuple(name for _, name in _SEEN.findall(first)))
        for action in request.history:
            belief.read(environment.step(action).text)
        environment.close()
        return belief


@dataclass(frozen=True)
class _Mind:
    """One decision, from the belief, the goal, and a generator for choices among equals."""

    belief: _Belief
    goal: Goal
    rng: random.Random

    def decide(self) -> Decision:
        goal, belief = self.goal, self.belief
        if belief.held and _noun(belief.held) != goal.object:
            return self._put_away()
        if belief.held:
            if goal.kind == "light":
                return self._use_lamp()
            return self._treat() if goal.kind in TOOLS and belief.treated != goal.kind else self._deliver()
        delivered = self._delivered()
        places = [place for place in belief.places_of(goal.object) if place != delivered]
        if belief.at in places:
            if belief.at in belief.closed:
                return self._open()
            thing = next(name for name in belief.seen[belief.at] if _noun(name) == goal.object)
            return self._handle("take", thing, f"take {thing} from {belief.at}", _reason_to_take(goal.object))
        if places:
            return Decision(f"go to {places[0]}", f"I saw {a(goal.object)} there, so I go back.")
        return self._search(goal.object, f"another {goal.object}" if delivered else a(goal.object))

    def _delivered(self) -> str:
        """The receptacle where the first of two objects already lies; empty where there is none."""
        targets = [place for place in self.belief.places_of(self.goal.object) if _noun(place) == self.goal.target]
        return targets[0] if targets else ""

    def _search(self, noun: str, wanted: str) -> Decision:
        belief = self.belief
        if belief.at in belief.closed and belief.at not in belief.seen:
            return self._open(search=True)
        left = belief.unsearched()
        if not left:
            return Decision("look", f"I have searched everywhere for {wanted}.", search=True)
        share = dict(zip(belief.names, likelihood(noun, [_noun(name) for name in belief.names]), strict=True))
        weights = [share[name] + 1e-9 for name in left]  # never all 0
        place = self.rng.choices(left, weights)[0]
        reason = f"I need {wanted}. It may be {into(_noun(place))} {a(_noun(place))}."
        return Decision(
            f"go to {place}", reason, search=True, open_choice=2 * max(weights) <= sum(weights) and len(left) > 1
        )

    def _open(self, *, search: bool = False) -> Decision:
        return Decision(f"open {self.belief.at}", "It is closed, so I open it.", search=search)

    def _put_away(self) -> Decision:
        """Put down an object that the task does not need, which another policy took."""
        belief = self.belief
        if belief.at in belief.closed:
            return self._open()
        action = f"move {belief.held} to {belief.at}"
        return self._handle("move", belief.held, action, f"I need no {_noun(belief.held)}, so I put it away.")

    def _treat(self) -> Decision:
        belief, verb, tool = self.belief, self.goal.kind, TOOLS[self.goal.kind]
        if _noun(belief.at) == tool:
            action = f"{verb} {belief.held} with {belief.at}"
            return self._handle(verb, belief.held, action, f"Now I {verb} the {self.goal.object}.")
        place = self.rng.choice([name for name in belief.names if _noun(name) == tool])
        return Decision(f"go to {place}", f"Next I {verb} the {self.goal.object} with {a(tool)}.")

    def _deliver(self) -> Decision:
        belief, goal = self.belief, self.goal
        if belief.at in belief.closed and _noun(belief.at) == goal.target:
            return self._open()
        place = self._delivered()
        if belief.at == place or (not place and _noun(belief.at) == goal.target):
            preposition = into(goal.target)
            action = f"move {belief.held} to {belief.at}"
            return self._handle("move", belief.held, action, f"Now I put the {goal.object} {preposition} it.")
        place = place or self.rng.choice([name for name in belief.names if _noun(name) == goal.target])
        return Decision(f"go to {place}", f"Next I put the {goal.object} {into(goal.target)} {a(goal.target)}.")

    def _use_lamp(self) -> Decision:
        belief = self.belief
        places = belief.places_of(LAMP)
        if belief.at in places:
            lamp = next(name for name in belief.seen[belief.at] if _noun(name) == LAMP)
            return self._handle("use", belief.held, f"use {lamp}", f"Now I turn on the {LAMP}.")
        if places:
            return Decision(f"go to {places[0]}", f"Next I look at the {self.goal.object} under a {LAMP}.")
        return self._search(LAMP, f"a {LAMP}")

    def _handle(self, verb: str, thing: str, action: str, reason: str) -> Decision:
        """The action, with the manner for the thing's condition where it has one."""
        condition = self.belief.condition.get(thing)
        if condition is None:
            return Decision(action, reason)
        manner, what = condition.handling(verb), "the lamp" if verb == "use" else "it"
        return Decision(f"{action} {manner}", f"The {_noun(thing)} is {condition.adjective}, so I {verb} {what} {manner}.")
