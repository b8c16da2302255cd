"""The engine's own solutions, and the expert that follows them as an agent would: each step with a mode and a reason.

Invariants
----------
* A solution ends where the task is completed, and was carried out under the very settings it is used with: score 100.
* Finding one takes from a fifth of a second to several seconds, so each is kept in a file, named by the engine's version
  and the world's settings, which appears whole or not at all. The files can be deleted at any moment.

Mechanism
---------
The solution knows where things are; the agent could not. Steps that lead to something (`go to`, `open`, looking around or
into something) are steps of a search as long as the next thing to be used has not been named in what was seen. Where to go,
or what to look into, is an open choice then. `searching.said` makes modes of that: `dense` tags mark all of a search,
`sparse` tags its open choices, the first step excepted.
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
from typing import Any, Literal

from spark_rl.environments.scienceworld.catalogue import named
from spark_rl.environments.scienceworld.engine import Engines
from spark_rl.environments.scienceworld.jvm import engine_version
from spark_rl.environments.searching import Decision, said
from spark_rl.errors import EnvironmentFailure, PolicyFailure
from spark_rl.files import cache_folder, write_bytes
from spark_rl.types import Completion, Request, Spent, Task

__all__ = ["SHORTEST", "GoldPaths", "Solution", "Solutions", "explain"]

SHORTEST = {
    "grow-fruit": 56,
    "inclined-plane-determine-angle": 54,
    "inclined-plane-friction-named-surfaces": 50,
    "inclined-plane-friction-unnamed-surfaces": 101,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 120,
}
"""Types whose solutions all have at least so many steps, in what was looked at: shorter ones are not looked for, as finding
one can take seconds. All other types have some of 30 or fewer."""

_MISSES = 8
"""Solutions of a type in a row that are too long before no more of that type are looked for."""

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
_CHOICES = ("go to", "teleport to", "look in")


@dataclass(frozen=True)
class Solution:
    """What wins a task."""

    actions: tuple[str, ...]
    """Empty when the engine's own solution does not reach score 100 under these settings."""
    seen: tuple[str, ...]
    """The first observation, then the one after each action."""

    def decision(self, step: int, instruction: str) -> Decision:
        """A step, explained to somebody who has read the task."""
        met = " ".join((*self.seen[: step + 1], *self.actions[:step]))
        return explain(self.actions, step, met, instruction)


@dataclass(frozen=True)
class Solutions:
    """Solutions under the settings of a world."""

    engines: Engines

    def of(self, task_id: str) -> Solution:
        """The solution of a task, from its file if there is one."""
        return _solution(self, task_id)

    def short(self, tasks: Iterable[Task], horizon: int) -> Iterator[Task]:
        """Tasks solved within the horizon, one of each type in turn as long as it lasts; in their order otherwise."""
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
        """Where a solution is kept."""
        settings = f"{engine_version()}-{self.engines.seeding}-{self.engines.simplifications.replace(',', '+') or 'none'}"
        kind, number = named(task_id)
        return cache_folder() / "scienceworld" / settings / kind / f"{number}.json"

    def find(self, task_id: str) -> Solution:
        """Ask the engine for a solution, carry it out, and cut it where the task is completed."""
        path = self.engines.gold(task_id)
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
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return Solution(tuple(record["actions"]), tuple(record["seen"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or not whole: found again, and written over
    found = solutions.find(task_id)
    write_bytes(file, json.dumps({"actions": found.actions, "seen": found.seen}).encode())
    return found


class GoldPaths:
    """A policy that follows the engine's solutions. It answers only while it has been followed from the start."""

    def __init__(self, solutions: Solutions, tags: Literal["sparse", "dense"] = "sparse") -> None:
        self.spent = Spent()
        self._solutions = solutions
        self._tags: Literal["sparse", "dense"] = tags

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The same next step for each sample of a request.

        Raises:
            PolicyFailure: the actions so far are not the beginning of the solution, or there is none.
        """
        return [[self._answer(request)] * request.n for request in requests]

    def _answer(self, request: Request) -> Completion:
        try:
            solution = self._solutions.of(request.task.id)
        except EnvironmentFailure as error:
            raise PolicyFailure(f'no solution of "{request.task.id}" was found: {error}') from error
        step = len(request.history)
        if request.history != solution.actions[:step] or step >= len(solution.actions):
            raise PolicyFailure(
                f'the solution of "{request.task.id}" does not continue from {list(request.history)}: '
                "it can only be followed from the start, without slips"
            )
        return said(solution.decision(step, request.task.instruction), self._tags, first=step == 0)


def explain(actions: Sequence[str], step: int, met: str, instruction: str) -> Decision:
    """A step of a solution, explained by the solution, the task, and all that was seen and done before the step.

    What is looked for has a name only if the task gives it: which animal will be found, nobody can know.
    """
    action = actions[step]
    verb, thing, place = _read(action)
    if verb not in _LEADS:
        shown = thing.replace(" in inventory", "")
        return Decision(action, _REASONS.get(verb, "This comes next.").format(thing=shown, place=place))
    purpose = next((later for later in actions[step:] if _read(later)[0] not in _LEADS), "")
    name = re.split(r" (?:in|on|containing) ", _read(purpose)[1])[0]
    carried = " in inventory" in purpose
    if verb in ("wait", "wait1"):
        return Decision(action, "This takes time, so I wait.")
    if not name or carried or re.search(rf"\b{re.escape(name)}\b", met):
        return Decision(action, _KNOWN.get(verb, "I check how things stand.").format(thing=thing))
    return Decision(
        action,
        _SOUGHT.get(verb, "I look for {one}.").format(
            thing=thing, one=f"the {name}" if name in instruction else "what I need"
        ),
        search=True,
        open_choice=verb in _CHOICES,
    )


_SOUGHT = {
    "go to": "I have not seen {one} yet; I look in the {thing}.",
    "teleport to": "I have not seen {one} yet; I look in the {thing}.",
    "open": "I have not seen {one} yet; it may be in or behind the {thing}.",
    "look around": "I do not know whether {one} is here, so I look around.",
    "look in": "I have not seen {one} yet; it may be in the {thing}.",
}
_KNOWN = {
    "go to": "What I do next is to be done in the {thing}, so I go there.",
    "teleport to": "What I do next is to be done in the {thing}, so I go there.",
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
    """Verb, thing and place of an action; an action of another form is all verb."""
    for form in _FORMS:
        if (match := form.fullmatch(action)) is not None:
            found = match.groupdict()
            return found["verb"], found["thing"] or "", found.get("place") or ""
    return action, "", ""
