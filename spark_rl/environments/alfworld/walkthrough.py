"""The solution that ALFWorld stores with each game, as completions: each step with a mode and a reason.

Invariant
---------
The actions are the stored ones and win. Reason and mode follow from the actions by one rule, without an engine.

Mechanism
---------
The solution knows where things are; the agent cannot. A step towards a thing that has not been seen (`go to` or `open`,
before a `take` or `use`) is therefore a step of a search, unless the thing's place has been visited before. `dense` tags
mark all steps of a search `<explore>`. `sparse` tags mark only those that choose the next place (`go to`), except the first
step of the episode, since forks there would spend the whole budget on the start. All other steps are `<think>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Literal

from spark_rl.environments.alfworld.games import Game
from spark_rl.errors import PolicyFailure
from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Mode, Request

__all__ = ["Walkthrough", "explain"]

Tags = Literal["sparse", "dense"]
_ACTION = re.compile(
    r"(?P<verb>go to|open|close|take|move|use|heat|cool|clean) (?P<thing>.+?)(?: (?:from|to|with) (?P<place>.+))?"
)


class Walkthrough:
    """A policy that follows the stored solutions; it answers only on paths that follow the solution from the start."""

    def __init__(self, read: Callable[[str], Game], tags: Tags = "sparse") -> None:
        self._tags: Tags = tags
        self._solution = lru_cache(maxsize=1024)(partial(_solution, read))

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The same next step for each sample of a request.

        Raises:
            PolicyFailure: the actions so far are not the beginning of the solution, or the game stores none.
        """
        return [[Completion(self._answer(request))] * request.n for request in requests]

    def _answer(self, request: Request) -> str:
        solution, done = self._solution(request.task.id), len(request.history)
        if request.history != solution[:done] or done == len(solution):
            raise PolicyFailure(f'the walkthrough of "{request.task.id}" does not continue from {list(request.history)}')
        mode, reason = explain(solution, done, request.observation.text, self._tags)
        return respond(mode, reason, solution[done])


def _solution(read: Callable[[str], Game], task_id: str) -> tuple[str, ...]:
    solution = read(task_id).get("walkthrough")
    if not solution:
        raise PolicyFailure(f'game "{task_id}" holds no walkthrough; unpack the ALFWorld archive again')
    return tuple(solution)


def explain(solution: Sequence[str], step: int, observation: str, tags: Tags = "dense") -> tuple[Mode, str]:
    """Mode and reason of a step of a solution, from the solution and the observation before the step."""
    verb, thing, place = _read_action(solution[step])
    if verb not in _KNOWN:
        return "think", _REASONS.get(verb, "This comes next.").format(thing=thing, place=place)
    ahead = range(step, len(solution))
    purpose = next((index for index in ahead if not solution[index].startswith(tuple(_KNOWN))), len(solution) - 1)
    wanted, sought, _ = _read_action(solution[purpose])
    known = wanted not in ("take", "use") or _visited(solution, step, purpose)
    if known or re.search(rf"\b{re.escape(sought)}\b", observation):
        return "think", _KNOWN[verb].format(thing=thing, sought=sought, has="have" if wanted != "take" else "have seen")
    kind = sought.rpartition(" ")[0]
    again = any(action.startswith(f"take {kind} ") for action in solution[:step])
    article = "another" if again else "an" if kind[0] in "aeiou" else "a"
    explores = tags == "dense" or (verb == "go to" and step > 0)
    return "explore" if explores else "think", _SOUGHT[verb].format(thing=thing, one=f"{article} {kind}")


_SOUGHT = {
    "go to": "I need {one} and have not seen where it is; I look at the {thing}.",
    "open": "The {thing} is closed; {one} may be inside.",
    "close": "I close the {thing} and go on looking for {one}.",
}
_KNOWN = {
    "go to": "I {has} the {sought}, so I go to the {thing}.",
    "open": "The {thing} is closed, so I open it.",
    "close": "I am done with the {thing}, so I close it.",
}
_REASONS = {
    "take": "The {thing} is here and the task needs it, so I take it.",
    "move": "I have the {thing} and am where it belongs, so I move it to the {place}.",
    "use": "The {thing} is here, so I switch it on.",
    "heat": "The task wants the {thing} hot, so I heat it with the {place}.",
    "cool": "The task wants the {thing} cool, so I cool it with the {place}.",
    "clean": "The task wants the {thing} clean, so I clean it with the {place}.",
}


def _read_action(action: str) -> tuple[str, str, str]:
    """Verb, thing and place of an action; an action of another form is the verb as a whole."""
    match = _ACTION.fullmatch(action)
    return (match["verb"], match["thing"], match["place"] or "") if match else (action, "", "")


def _visited(solution: Sequence[str], step: int, purpose: int) -> bool:
    """Whether every action from `step` to `purpose` has been taken before, so that the agent has seen the place."""
    return all(action in solution[:step] for action in solution[step:purpose])
