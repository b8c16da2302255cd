"""An episode of ScienceWorld: a handle on a place, and on a world of the engine that is at this place.

Invariants
----------
* The agent reads the engine's text, unchanged. An action is admissible when the engine knows an action that matches it.
* A refused action changes nothing. Nor do lists of actions and objects, which the engine makes on demand.
* A fork and its origin answer byte for byte the same to the same actions, whatever siblings do.
* A task is solved at score 100. The end of an episode with a lower score is no success, since waiting also ends an episode.
* A handle survives its world: it can be pickled and continued in another process, and goes on after a process has died.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from spark_rl.environments.scienceworld.engine import Engines, Live, Place
from spark_rl.errors import EnvironmentFailure
from spark_rl.types import Observation, Task

__all__ = ["Rules", "ScienceWorldEnvironment"]

Reward = Literal["success", "score"]
Success = Literal["score", "won"]

_NUMBER = re.compile(r"\s*\d+\s*")


class Rules:
    """The rules for the end of an episode, for its success and for its rewards."""

    def __init__(self, ticks: int, success: Success, reward: Reward) -> None:
        self.ticks, self.success, self.reward = ticks, success, reward

    def done(self, place: Place) -> bool:
        """Whether the task is completed, is lost (by focusing on a wrong thing), or is out of simulated time."""
        shown = place.shown
        return shown.completed or shown.score < 0 or 0 < self.ticks < shown.ticks

    def solved(self, place: Place) -> bool:
        """Whether the score is 100; with `success` `won`, whether the episode is done at any score above 0."""
        if self.success == "won":
            return self.done(place) and place.shown.score > 0
        return place.shown.score >= 1

    def pay(self, place: Place, before: Place | None) -> float:
        """Reward of the step from `before` to `place`; the rewards of a path add up to its success, or its gain of score."""
        if self.reward == "score":
            return _score(place) - (_score(before) if before else 0.0)
        return float(self.solved(place))


def _score(place: Place) -> float:
    """Score from 0 to 1; the engine's -1, for a lost task, counts as 0."""
    return max(place.shown.score, 0.0)


class ScienceWorldEnvironment:
    """One episode. Several threads may play, each its own episode."""

    fork_cost: Literal["cheap", "replay"] = "replay"
    """A copy costs about as much as a step, and some 0.3 MB. A copy at each step, for a possible fork, would cost more than
    a replay at each actual fork."""

    out_of_process = True

    def __init__(self, engines: Engines, rules: Rules) -> None:
        self._engines, self._rules = engines, rules
        self._place: Place | None = None
        self._live: Live | None = None
        self._latest: Place | None = None
        """The place with the latest answer; after a refusal, the episode is not there but still at `_place`."""
        self._kind = ""

    def reset(self, task: Task) -> Observation:
        """Start the task; the first observation is that of looking around.

        Raises:
            EnvironmentFailure: the engine cannot build the task.
            UsageError: there is no such task, or Java is missing.
        """
        self.close()
        self._live, self._place = self._engines.start(task.id)
        self._latest = self._place
        return self._observation(self._place, None)

    def step(self, action: str) -> Observation:
        """Send an action; one that the engine does not know changes nothing.

        Raises:
            ReplayMismatch: the world had to be rebuilt, and has changed.
            EnvironmentFailure: before `reset`, or the engine dies or fails at the action.
        """
        before, live = self._here(), self._live
        self._live = None  # until the step has succeeded, the world's state is not known
        self._live, place = self._engines.step(live, before, action)
        self._latest = place
        if place.shown.known:
            self._kind = "number" if _NUMBER.fullmatch(action) else action.split()[0].lower()
            self._place = place
        else:
            self._kind = "invalid"
        return self._observation(place, before)

    def fork(self) -> ScienceWorldEnvironment:
        """An independent continuation: a copy of the world."""
        twin = ScienceWorldEnvironment(self._engines, self._rules)
        twin._place, twin._latest, twin._kind = self._place, self._latest, self._kind
        if self._place is not None:
            self._live, twin._live = self._engines.fork(self._live, self._place)
        return twin

    def state_key(self) -> str:
        """Verb of the last action, the engine's text, the room and what the agent carries."""
        shown = self._here().shown
        assert self._latest is not None
        return "\n".join((self._kind, self._latest.shown.text, shown.room, shown.inventory))

    def close(self) -> None:
        """Release the world."""
        self._place = self._latest = self._live = None
        self._kind = ""

    def __getstate__(self) -> Mapping[str, object]:
        return self.__dict__ | {"_live": None}

    def _here(self) -> Place:
        if self._place is None:
            raise EnvironmentFailure("scienceworld: no task is started; call reset(task) first")
        return self._place

    def _observation(self, place: Place, before: Place | None) -> Observation:
        answers = _Answers(partial(self._tell, self._here()))
        return Observation(
            text=place.shown.text,
            listing=answers.actions,
            reward=self._rules.pay(place, before),
            done=self._rules.done(place),
            success=self._rules.solved(place),
            admissible=place.shown.known,
            brief=answers.brief,
            progress={"score": _score(place), "subgoals": place.shown.reached},
        )

    def _tell(self, place: Place, question: Literal["actions", "sight"]) -> list[str]:
        """The engine's answer about the episode's present place, or an earlier one."""
        if place is not self._place:
            return self._engines.tell(None, place, question)[1]
        self._live, answer = self._engines.tell(self._live, place, question)
        return answer


class _Answers:
    """The lists for a place, each asked for at most once."""

    def __init__(self, tell: Callable[[Literal["actions", "sight"]], list[str]]) -> None:
        self._tell = tell
        self._actions: tuple[str, ...] | None = None
        self._brief: tuple[str, ...] | None = None

    def actions(self) -> tuple[str, ...]:
        """All valid actions, sorted; several objects of one name make one action."""
        if self._actions is None:
            self._actions = tuple(sorted(set(self._tell("actions"))))
        return self._actions

    def brief(self) -> tuple[str, ...]:
        """The objects that OBJ stands for, then the forms of actions; numbers while the engine asks which one was meant."""
        if self._brief is None:
            forms, _, names = "\n".join(self._tell("sight")).partition("\n\n")
            named = ("OBJ is one of: " + ", ".join(names.split("\n")),) if names else ()
            self._brief = (*named, *forms.split("\n"))
        return self._brief
