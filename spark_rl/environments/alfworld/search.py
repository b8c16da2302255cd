"""An expert that searches: it knows the usual places of things and its observations, and nothing else.

Invariants
----------
* A decision depends on the observations of the path and on the sample's seed. The expert never reads hidden state.
* The expert continues the path of any other policy. Its reasons are few, short sentences that first name the thing that
  the task needs.

Mechanism
---------
The expert derives a belief from the observations of the path. A request has only the latest observation, so beliefs are
stored by path; a path with no stored beginning is played again in an environment of the expert. The next place to search is
drawn in proportion to the chance of success per step that the place costs, so that demonstrations are varied and sensible,
and RL can improve on them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from spark_rl.contracts import Environment
from spark_rl.environments.alfworld.placement import CHANCES, CLOSED, into
from spark_rl.environments.searching import Decision, completion, plan
from spark_rl.errors import PolicyFailure
from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Request

__all__ = ["Belief", "Goal", "SearchExpert", "decide"]

BELIEFS = 4096
"""Most beliefs in memory; the oldest goes first."""
_TOOLS = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
_STATES = {"clean": "clean", "heat": "hot", "cool": "cool"}
_VERBS = {state: verb for verb, state in _STATES.items()}
_FAINT = 0.001
"""Chance of a place where no such thing was counted."""

_NAME = r"[a-z]+ \d+"
_NAMES = re.compile(rf"\ban? ({_NAME})")
_CONTENTS = re.compile(rf"(?:On the ({_NAME})|The ({_NAME}) is open\. In it), you see (.*)")
_SHUT = re.compile(rf"(?:The ({_NAME}) is closed|^You close the ({_NAME}))\.")
_TAKEN = re.compile(rf"You pick up the ({_NAME}) from the ({_NAME})\.")
_MOVED = re.compile(rf"You move the ({_NAME}) to the ({_NAME})\.")
_TREATED = re.compile(rf"You (clean|heat|cool) the ({_NAME}) using ")
_GOAL = re.compile(
    r"(?:examine the|look at) (?P<seen>\w+) (?:with|under) the (?P<lamp>\w+)\.?"
    r"|(?P<verb>put|find|clean|heat|cool) (?:an?|some|(?P<two>two)) (?:(?P<state>clean|hot|cool) )?(?P<thing>\w+)"
    r"(?: and put (?:it|them))? (?:in|on) (?P<target>\w+)\.?"
)


@dataclass(frozen=True)
class Goal:
    """The goal of a task, in nouns."""

    kind: Literal["place", "two", "clean", "heat", "cool", "light"]
    object: str
    target: str
    """The receptacle for the object; for `light` the lamp."""

    @classmethod
    def read(cls, instruction: str) -> Goal:
        """The goal of a task's sentence.

        Raises:
            PolicyFailure: the sentence is none of ALFWorld's.
        """
        if (match := _GOAL.fullmatch(instruction)) is None:
            raise PolicyFailure(f'the searching expert does not understand the task "{instruction}"')
        if match["lamp"]:
            return cls("light", match["seen"], match["lamp"])
        kind = "two" if match["two"] else _VERBS.get(match["state"] or "", match["verb"])
        return cls(kind if kind in ("two", *_TOOLS) else "place", match["thing"], match["target"])  # pyright: ignore[reportArgumentType]

    @property
    def plan(self) -> str:
        """The steps of the task in words."""
        preposition = "under" if self.kind == "light" else into(self.target)
        return plan(self.kind, _a(self.object), f"{preposition} {_a(self.target)}")


@dataclass(frozen=True)
class Belief:
    """What an agent knows from the observations of a path; a value, of which `after` makes a new one."""

    places: tuple[str, ...]
    """All receptacles, in the order of the first observation."""
    contents: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Receptacle whose contents the agent has seen -> the things that are there now."""
    closed: frozenset[str] = frozenset()
    """Receptacles that are closed, as far as the agent knows."""
    held: str = ""
    origin: str = ""
    """Receptacle from which the thing in hand was taken."""
    treated: frozenset[tuple[str, str]] = frozenset()
    """(verb, thing) of the things that are clean, hot or cool."""

    @classmethod
    def first(cls, text: str) -> Belief:
        """The belief after the first observation."""
        return cls(tuple(_NAMES.findall(text.partition("Your task is to:")[0])))

    def after(self, text: str) -> Belief:
        """The belief after the answer to an action; an answer without news changes nothing."""
        if match := _TAKEN.match(text):
            thing, place = match.groups()
            # The engine lists some things in two receptacles; a thing in hand is in neither of them.
            left = {where: tuple(name for name in names if name != thing) for where, names in self.contents.items()}
            return replace(self, contents=left, held=thing, origin=place)
        if match := _MOVED.match(text):
            thing, place = match.groups()
            return replace(self, contents=self.contents | {place: (*self.contents.get(place, ()), thing)}, held="")
        if match := _TREATED.match(text):
            verb, thing = match.groups()
            undone = {("heat", thing), ("cool", thing)} if verb != "clean" else set[tuple[str, str]]()
            return replace(self, treated=(self.treated - undone) | {(verb, thing)})
        belief = self
        for on, inside, names in _CONTENTS.findall(text):
            place = on or inside
            seen = self.contents | {place: tuple(_NAMES.findall(names))}
            belief = replace(belief, contents=seen, closed=belief.closed - {place})
        if match := _SHUT.search(text):
            belief = replace(belief, closed=belief.closed | {match[1] or match[2]})
        return belief

    def where(self, noun: str) -> list[tuple[str, str]]:
        """(thing, receptacle) of all things of a noun that the agent knows of."""
        return [(name, place) for place, names in self.contents.items() for name in names if _noun(name) == noun]


@dataclass
class SearchExpert:
    """An expert that decides from observations."""

    make: Callable[[], Environment]
    """Makes the environment in which a path is played again."""
    tags: Literal["sparse", "dense"] = "sparse"
    """Which steps are in explore mode: see `searching.completion`."""
    _beliefs: dict[tuple[str, tuple[str, ...]], Belief] = field(
        default_factory=dict[tuple[str, tuple[str, ...]], Belief], init=False, repr=False
    )
    """Beliefs by task and path."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """One decision for each seed of each request.

        Raises:
            PolicyFailure: the task is none of ALFWorld's, or its room lacks a receptacle that the task needs.
        """
        return [self._answers(request) for request in requests]

    def mistake(self, request: Request) -> Completion | None:
        """A beginner's mistake, for demonstrations of how to recover: to take the wanted thing where it does not lie.

        Returns:
            None where the expert does not search, or has not seen the contents of a receptacle here.
        """
        belief, goal = self._recall(request), Goal.read(request.task.instruction)
        here = [place for place in _within_reach(belief, request.observation.actions) if place in belief.contents]
        if not here or not decide(belief, goal, request.observation.actions, random.Random(0)).search:
            return None
        if belief.held:
            return Completion(respond("think", _USE.format(goal.target), f"use {goal.target} 1"))
        return Completion(respond("think", _reason_to_take(_a(goal.object)), f"take {goal.object} 1 from {here[0]}"))

    def _answers(self, request: Request) -> list[Completion]:
        belief, goal, actions = self._recall(request), Goal.read(request.task.instruction), request.observation.actions
        answers: list[Completion] = []
        for seed in request.seeds:
            decision = decide(belief, goal, actions, random.Random(seed))
            answers.append(completion(decision, self.tags, first=not request.history))
        return answers

    def _recall(self, request: Request) -> Belief:
        """The belief of a path, derived from the stored belief of the path before the last action where there is one."""
        task, path = request.task, request.history
        if (belief := self._beliefs.get((task.id, path))) is None:
            before = self._beliefs.get((task.id, path[:-1])) if path else None
            if not path:
                belief = Belief.first(request.observation.text)
            elif before is not None:
                belief = before.after(request.observation.text)
            else:
                belief = self._replay(request)
            self._beliefs[task.id, path] = belief
            if len(self._beliefs) > BELIEFS:
                del self._beliefs[next(iter(self._beliefs))]
        return belief

    def _replay(self, request: Request) -> Belief:
        environment = self.make()
        belief = Belief.first(environment.reset(request.task).text)
        for action in request.history:
            belief = belief.after(environment.step(action).text)
        environment.close()
        return belief


def decide(belief: Belief, goal: Goal, actions: Sequence[str], rng: random.Random) -> Decision:
    """The next step.

    Args:
        belief: the belief.
        goal: the goal.
        actions: the admissible actions, from which the expert sees what is within reach.
        rng: decides between equally good actions.
    """
    return _Mind(belief, goal, frozenset(actions), rng).decide()


@dataclass(frozen=True)
class _Mind:
    belief: Belief
    goal: Goal
    actions: frozenset[str]
    rng: random.Random

    def decide(self) -> Decision:
        goal, belief = self.goal, self.belief
        if belief.held and _noun(belief.held) != goal.object:
            return self._put_away()
        if belief.held:
            if goal.kind == "light":
                return self._use_lamp()
            treat = goal.kind in _TOOLS and (goal.kind, belief.held) not in belief.treated
            return self._treat() if treat else self._deliver()
        return self._fetch()

    def _fetch(self) -> Decision:
        goal, belief = self.goal, self.belief
        delivered = self._delivered()
        wanted = f"another {goal.object}" if delivered else _a(goal.object)
        things = [(thing, place) for thing, place in belief.where(goal.object) if place != delivered]
        things.sort(key=lambda pair: (goal.kind, pair[0]) not in belief.treated)
        for thing, place in things:
            if (take := f"take {thing} from {place}") in self.actions:
                return Decision(take, _reason_to_take(wanted))
        for _, place in things:
            if place in belief.closed and (step := f"open {place}") in self.actions:
                return Decision(step, f"I need {wanted}. I saw one in the {_noun(place)}, so I open it again.")
        if things:
            place = things[0][1]
            where = f"{into(_noun(place))} the {_noun(place)}"
            return Decision(f"go to {place}", f"I need {wanted}. I saw one {where}, so I go back.")
        return self._search(goal.object, wanted)

    def _delivered(self) -> str:
        """The receptacle where the first of two things already lies; empty where there is none."""
        if self.goal.kind != "two":
            return ""
        there = [place for _, place in self.belief.where(self.goal.object) if _noun(place) == self.goal.target]
        return max(there, key=there.count, default="")

    def _search(self, noun: str, wanted: str) -> Decision:
        belief, reach = self.belief, _within_reach(self.belief, self.actions)
        left = [place for place in belief.places if place not in belief.contents]
        if not left:
            return Decision("look", f"I need {wanted}. I have looked everywhere.", search=True)
        for place in left:
            if place in belief.closed and (step := f"open {place}") in self.actions:
                return Decision(step, f"I need {wanted}. The {_noun(place)} is closed, so I open it.", search=True)
        # If places are independent, the shortest search on average goes by chance over cost.
        chances = CHANCES.get(noun, {})
        cost = {place: 1 if place in reach else 1 + (_noun(place) in CLOSED) for place in left}
        weights = [chances.get(_noun(place), _FAINT) / cost[place] for place in left]
        place = self.rng.choices(left, weights)[0]
        step = f"open {place}" if f"open {place}" in self.actions else f"{'examine' if place in reach else 'go to'} {place}"
        return Decision(
            step,
            f"I need {wanted}. It may be {into(_noun(place))} {_a(_noun(place))}{' here' if place in reach else ''}.",
            search=True,
            open_choice=2 * max(weights) <= sum(weights) and len(left) > 1,
        )

    def _put_away(self) -> Decision:
        """Put down a thing that the task does not need, which another policy took: its first receptacle accepts it."""
        held, place = self.belief.held, self.belief.origin
        reason = f"I do not need the {_noun(held)}, so I put it away."
        moves = sorted(action for action in self.actions if action.startswith(f"move {held} to "))
        if moves:
            return Decision(moves[0], reason)
        return Decision(step if (step := f"open {place}") in self.actions else f"go to {place}", reason)

    def _treat(self) -> Decision:
        held, verb, tool = self.belief.held, self.goal.kind, _TOOLS[self.goal.kind]
        thing = _noun(held)
        here = sorted(action for action in self.actions if action.startswith(f"{verb} {held} with "))
        if here:
            return Decision(here[0], f"Now I {verb} the {thing}.")
        return Decision(f"go to {self._one_of(tool)}", f"I have the {thing}. Next I {verb} it with {_a(tool)}.")

    def _deliver(self) -> Decision:
        belief, thing, target = self.belief, self.goal.object, self.goal.target
        there = self._delivered()
        places = [there] if there else [place for place in belief.places if _noun(place) == target]
        for place in places:
            if (move := f"move {belief.held} to {place}") in self.actions:
                return Decision(move, f"Now I put the {thing} {into(target)} the {target}.")
        for place in places:
            if (step := f"open {place}") in self.actions:
                return Decision(step, f"The {target} is closed, so I open it.")
        opened = [place for place in places if place in belief.contents and place not in belief.closed]
        place = self.rng.choice(opened) if opened else there or self._one_of(target)
        which = "other " if there else f"{_STATES[self.goal.kind]} " if self.goal.kind in _STATES else ""
        return Decision(f"go to {place}", f"I have the {which}{thing}. Next I put it {into(target)} {_a(target)}.")

    def _use_lamp(self) -> Decision:
        belief, lamp = self.belief, self.goal.target
        here = sorted(action for action in self.actions if action.startswith(f"use {lamp} "))
        if here:
            return Decision(here[0], _USE.format(lamp))
        if lamps := belief.where(lamp):
            place = lamps[0][1]
            if (step := f"open {place}") in self.actions:
                return Decision(step, f"The {_noun(place)} is closed, so I open it.")
            return Decision(f"go to {place}", f"I have the {self.goal.object}. Next I look at it under a {lamp}.")
        return self._search(lamp, _a(lamp))

    def _one_of(self, noun: str) -> str:
        """A receptacle of a noun."""
        if places := [place for place in self.belief.places if _noun(place) == noun]:
            return self.rng.choice(places)
        raise PolicyFailure(f"the task needs {_a(noun)}, and the room has none")


_USE = "Now I turn on the {}."


def _within_reach(belief: Belief, actions: Sequence[str] | frozenset[str]) -> list[str]:
    """The receptacles at which the agent stands; several may share a place."""
    return [place for place in belief.places if f"examine {place}" in actions]


def _reason_to_take(wanted: str) -> str:
    return f"I need {wanted}. Here is one, so I take it."


def _noun(name: str) -> str:
    return name.partition(" ")[0]


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
