"""The engine's own solutions, and the expert that follows them: each step with a mode and a reason.

Invariants
----------
* A solution ends where the task is completed, and reached score 100 when it was played under the settings of the world.
* A solution is simplified only where the simpler one still wins. A simpler solution leaves out steps without effect (to
  open a door that is open). It names a thing as the texts do (couch), or as an earlier step did, and not by the engine's
  full name.
* The search for a solution takes from a fifth of a second to several seconds. Each solution is therefore stored in a file,
  named by the engine's version and the world's settings, which appears whole or not at all. The files may be deleted at any
  time.

Mechanism
---------
The solution knows where things are; the agent cannot. Steps that lead to something (`go to`, `open`, looking around or
into something) belong to a search as long as no observation has named the next thing to be used. The place to go to or to
look into is then an open choice. `searching.completion` derives the modes: `dense` tags mark all steps of a search, `sparse`
tags its open choices except the first step.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from spark_rl.common.files import cache_folder, write_bytes
from spark_rl.environments.scienceworld.catalogue import named
from spark_rl.environments.scienceworld.engine import Engines
from spark_rl.environments.scienceworld.jvm import engine_version
from spark_rl.environments.searching import Decision, completion
from spark_rl.errors import EnvironmentFailure, PolicyFailure
from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Request, Task

__all__ = ["SHORTEST", "GoldPaths", "Solution", "Solutions", "explain"]

SHORTEST = {
    "grow-fruit": 56,
    "inclined-plane-determine-angle": 54,
    "inclined-plane-friction-named-surfaces": 50,
    "inclined-plane-friction-unnamed-surfaces": 101,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 120,
}
"""Fewest steps of a solution by task type, in a sample. No shorter solution of these types is searched for, since each can
take seconds. All other types have solutions of 30 steps or fewer."""

_REVISION = 2
"""Version of `Solutions.find`; files of other versions are not read."""
_MISSES = 8
"""So many solutions of a type in a row that are too long end the search for solutions of this type."""

_VERB = (
    r"(?P<verb>go to|teleport to|look around|look at|look in|examine|open|close|focus on|pick up|put down|pour|move|dunk|"
    r"mix|activate|deactivate|use|read|eat|flush|connect|disconnect|wait1|wait|inventory|task)"
)
_FORMS = tuple(map(re.compile, (rf"{_VERB} (?P<thing>.+) (?:in|into|to|on) (?P<place>.+)", rf"{_VERB}(?: (?P<thing>.+))?")))
_LEADS = (
    "go to",
    "teleport to",
    "look around",
    "look at",
    "look in",
    "examine",
    "open",
    "close",
    "wait",
    "wait1",
    "inventory",
)
_GOES = ("go to", "teleport to")
_CHOICES = (*_GOES, "look in")


@dataclass(frozen=True)
class Solution:
    """Actions that win a task, and their observations."""

    actions: tuple[str, ...]
    """Empty when the engine's own solution does not reach score 100 under these settings."""
    seen: tuple[str, ...]
    """The first observation, then the one after each action."""

    def __bool__(self) -> bool:
        return bool(self.actions)

    def done(self, history: Sequence[str]) -> int:
        """Number of steps of the solution that an agent has done; its other actions are assumed to have changed nothing."""
        step = 0
        for action in history:
            step += self.actions[step : step + 1] == (action,)
        return step

    def decision(self, step: int, instruction: str) -> Decision:
        """A step of the solution with its reason."""
        past = " ".join((*self.seen[: step + 1], *self.actions[:step]))
        return explain(self.actions, step, past, instruction)


@dataclass(frozen=True)
class Solutions:
    """The solutions under the settings of a world."""

    engines: Engines

    def of(self, task_id: str) -> Solution:
        """The solution of a task, from its file where there is one."""
        return _solution(self, task_id)

    def short(self, tasks: Iterable[Task], horizon: int) -> Iterator[Task]:
        """Tasks with a solution within the horizon: one of each type in turn, and in the given order within a type."""
        by_kind: defaultdict[str, list[Task]] = defaultdict(list)
        for task in tasks:
            if SHORTEST.get(task.kind, 0) <= horizon:
                by_kind[task.kind].append(task)
        ready = (self._fitting(some, horizon) for _, some in sorted(by_kind.items()))
        return (task for task in chain.from_iterable(zip_longest(*ready)) if task is not None)

    def _fitting(self, tasks: Sequence[Task], horizon: int) -> Iterator[Task]:
        missed = 0
        for task in tasks:
            if 0 < len(self.of(task.id).actions) <= horizon:
                missed = 0
                yield task
            elif (missed := missed + 1) >= _MISSES:
                return

    def file(self, task_id: str) -> Path:
        """The file of a solution."""
        simplified = self.engines.simplifications.replace(",", "+") or "none"
        settings = f"{engine_version()}-{_REVISION}-{self.engines.seeding}-{simplified}"
        kind, number = named(task_id)
        return cache_folder() / "scienceworld" / settings / kind / f"{number}.json"

    def find(self, task_id: str) -> Solution:
        """The simplest solution that wins, of the engine's solution and two simplifications; all are played to find out."""
        solution = self._carry_out(task_id, self.engines.gold(task_id))
        simpler = (_plain(solution, as_read=True), _plain(solution, as_read=False))
        played = (self._carry_out(task_id, path) for path in dict.fromkeys(simpler) if path != solution.actions)
        return next(filter(None, played), solution)

    def _carry_out(self, task_id: str, path: Sequence[str]) -> Solution:
        """The solution that a path is, cut where the task is completed; empty where the path does not win."""
        live, place = self.engines.start(task_id)
        seen = [place.shown.text]
        for action in path:
            live, place = self.engines.step(live, place, action)
            seen.append(place.shown.text)
            if place.shown.completed or place.shown.score < 0:
                break
        won = place.shown.completed and place.shown.score >= 1
        return Solution(place.actions if won else (), tuple(seen) if won else ())


@lru_cache(maxsize=4096)
def _solution(solutions: Solutions, task_id: str) -> Solution:
    file = solutions.file(task_id)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return Solution(tuple(record["actions"]), tuple(record["seen"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the file is missing or damaged: the solution is searched for again, and the file is replaced
    solution = solutions.find(task_id)
    write_bytes(file, json.dumps({"actions": solution.actions, "seen": solution.seen}).encode())
    return solution


class GoldPaths:
    """An expert that follows the engine's solutions from the start, and passes over other actions of the path."""

    def __init__(self, solutions: Solutions, tags: Literal["sparse", "dense"] = "sparse") -> None:
        self._solutions = solutions
        self._tags: Literal["sparse", "dense"] = tags

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The same next step for each sample of a request.

        Raises:
            PolicyFailure: the task has no solution.
        """
        return [[self._answer(request)] * request.n for request in requests]

    def mistake(self, request: Request) -> Completion | None:
        """A beginner's mistake, for demonstrations of how to recover: to use a thing before the agent has reached it.

        Returns:
            None where the solution itself uses the thing at this step.
        """
        solution, step = self._at(request)
        purpose = _purpose(solution.actions, step)
        if purpose is None or purpose == step:
            return None
        return completion(solution.decision(purpose, request.task.instruction), self._tags, first=False)

    def _answer(self, request: Request) -> Completion:
        solution, step = self._at(request)
        if step == len(solution.actions):  # another action of the path has broken the solution
            return Completion(respond("think", "I have done all that I know.", "look around"))
        return completion(solution.decision(step, request.task.instruction), self._tags, first=not request.history)

    def _at(self, request: Request) -> tuple[Solution, int]:
        """The solution of a request's task, and the number of its steps that have been done."""
        try:
            solution = self._solutions.of(request.task.id)
        except EnvironmentFailure as error:
            raise PolicyFailure(f'no solution of "{request.task.id}" was found: {error}') from error
        if not solution:
            raise PolicyFailure(f'the engine\'s solution of "{request.task.id}" does not win under these settings')
        return solution, solution.done(request.history)


def explain(actions: Sequence[str], step: int, past: str, instruction: str) -> Decision:
    """A step of a solution with its reason.

    The reason names the thing that the agent searches for only where the task names it: nobody can know in advance which
    animal the agent will find.

    Args:
        actions: the solution.
        step: number of the step, from 0.
        past: all observations and actions before the step.
        instruction: the task.
    """
    action = actions[step]
    verb, thing, place = _read(action)
    needed = f"{'an' if match[1][0] in 'aeiou' else 'a'} {match[1]}" if (match := _NEEDED.search(instruction)) else ""
    if verb not in _LEADS:
        shown = thing.replace(" in inventory", "")
        reason = _ONE_IS_FOUND if verb == "focus on" and needed else _REASONS.get(verb, "This comes next.")
        return Decision(action, reason.format(thing=shown, place=place, needed=needed))
    if verb in ("wait", "wait1"):
        return Decision(action, "This takes time, so I wait.")
    later = _purpose(actions, step)
    name = re.split(r" (?:in|on|containing) ", _read(actions[later])[1])[0] if later is not None else ""
    taken = any(_read(before)[:2] == ("pick up", name) for before in actions[:step])
    if not name or taken or re.search(rf"\b{re.escape(name)}\b", past):
        ways = [place for verb, place, _ in map(_read, actions[step:later]) if verb in _GOES]
        reason = _ON_THE_WAY if ways[1:] and verb in _GOES else _KNOWN.get(verb, "I check how things stand.")
        return Decision(action, reason.format(thing=thing, there=ways[-1] if ways else ""))
    one = f"the {name}" if name in instruction else needed or "something"
    reason = _SOUGHT.get(verb, "I need {one}, so I look for it.").format(thing=thing, one=one)
    return Decision(action, reason, search=True, open_choice=verb in _CHOICES)


def _purpose(actions: Sequence[str], step: int) -> int | None:
    """The next step, from this one on, that uses a thing, and does not only lead to it."""
    return next((i for i in range(step, len(actions)) if _read(actions[i])[0] not in _LEADS), None)


def _plain(solution: Solution, *, as_read: bool) -> tuple[str, ...]:
    """The actions that have an effect; a carried thing has the name by which it was taken.

    With `as_read`, a thing that was focused on has the name in the engine's answer.
    """
    names: dict[str, str] = {}  # name in the solution -> name in the result
    plain: list[str] = []
    for action, answer in zip(solution.actions, solution.seen[1:], strict=True):
        if "already open" in answer:
            continue
        verb, thing, _ = _read(action)
        if verb == "focus on":
            names[thing] = match[1] if as_read and (match := _FOCUSED.search(answer)) else thing
        elif thing.endswith(_CARRIED):
            words = set(thing.split())
            names[thing] = next((names[name] for name in reversed(names) if words.issuperset(name.split())), thing)
        elif verb == "pick up":
            names.setdefault(thing, thing)
        plain.append(action.replace(thing, names.get(thing, thing)) if thing else action)
    return tuple(plain)


_FOCUSED = re.compile(r"You focus on the ([^.]+)\.")
_NEEDED = re.compile(r"find a\(n\) ([\w -]+)\.")
_CARRIED = " in inventory"
_ONE_IS_FOUND = "I need {needed}. The {thing} is one, so I focus on it."
_SOUGHT = {
    "go to": "I need {one}. It may be in the {thing}.",
    "teleport to": "I need {one}. It may be in the {thing}.",
    "open": "I need {one}. It may be in or behind the {thing}.",
    "look around": "I need {one}. I look whether it is here.",
    "look in": "I need {one}. It may be in the {thing}.",
}
_ON_THE_WAY = "I have to be in the {there}. The way leads through the {thing}."
_KNOWN = {
    "go to": "I have to be in the {there}, so I go there.",
    "teleport to": "I have to be in the {there}, so I go there.",
    "open": "The {thing} has to be open for what I do next.",
    "look around": "I look at what is here.",
}
_REASONS = {
    "focus on": "The task asks me to focus on the {thing}.",
    "pick up": "The {thing} is here and I need it, so I take it.",
    "put down": "The {thing} is where it should be, so I put it down.",
    "move": "The {thing} belongs in the {place} now.",
    "pour": "The {thing} belongs in the {place} now.",
    "dunk": "The {thing} has to go into the {place}.",
    "mix": "All parts are in the {thing}, so I mix them.",
    "activate": "The {thing} has to be on now.",
    "deactivate": "The {thing} is not needed any more, so I switch it off.",
    "use": "The {thing} tells what I need to know, so I use it.",
    "read": "The {thing} may say what I need to know.",
    "connect": "The {thing} has to be connected to the {place}.",
}


def _read(action: str) -> tuple[str, str, str]:
    """Verb, thing and place of an action; an action of another form is the verb as a whole."""
    for form in _FORMS:
        if (match := form.fullmatch(action)) is not None:
            parts = match.groupdict()
            return parts["verb"], parts["thing"] or "", parts.get("place") or ""
    return action, "", ""
