"""An episode of ScienceWorld: a handle on a place, and on a world that stands there.

Invariants
----------
* What the agent reads is the engine's text, unchanged. An action is admissible when the engine knows one that matches it.
* What is refused changes nothing, and so do questions: lists of actions and objects are made when somebody asks.
* A fork and its origin answer byte for byte the same to the same actions, whatever siblings do.
* Solved means score 100. That an episode ended with some score is not enough, as waiting ends it too.
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
    """When an episode ends, what solves it and what it pays."""

    def __init__(self, ticks: int, success: Success, reward: Reward) -> None:
        self.ticks, self.success, self.reward = ticks, success, reward

    def done(self, place: Place) -> bool:
        """Whether the task is completed, lost (something wrong was focused on), or out of simulated time."""
        shown = place.shown
        return shown.completed or shown.score < 0 or 0 < self.ticks < shown.ticks

    def solved(self, place: Place) -> bool:
        """Score 100; under `won`, the end of the episode at any score above 0."""
        if self.success == "won":
            return self.done(place) and place.shown.score > 0
        return place.shown.score >= 1

    def pay(self, place: Place, before: Place | None) -> float:
        """Reward of the step from one place to another; those of a path add up to its success, or to its gain of score."""
        if self.reward == "score":
            return _score(place) - (_score(before) if before else 0.0)
        return float(self.solved(place))


def _score(place: Place) -> float:
    """From 0 to 1; the engine's -1, for a task that is lost, is 0."""
    return max(place.shown.score, 0.0)


class ScienceWorldEnvironment:
    """One episode. Threads may each play their own."""

    fork_cost: Literal["cheap", "replay"] = "replay"
    """A copy costs about as much as a step and some 0.3 MB. To copy at each step, in case somebody forks there later, would
    cost more than to take the actions again where somebody does."""

    out_of_process = True

    def __init__(self, engines: Engines, rules: Rules) -> None:
        self._engines, self._rules = engines, rules
        self._place: Place | None = None
        self._live: Live | None = None
        self._said: Place | None = None
        """The latest answer; after a refusal it is not where the episode stands."""
        self._kind = ""

    def reset(self, task: Task) -> Observation:
        """Start the task: what is seen on looking around.

        Raises:
            EnvironmentFailure: the engine cannot build it.
            UsageError: no such task, or no Java.
        """
        self.close()
        self._live, self._place = self._engines.start(task.id)
        self._said = self._place
        return self._observation(self._place, None)

    def step(self, action: str) -> Observation:
        """Send an action; what the engine does not know changes nothing.

        Raises:
            ReplayMismatch: the world had to be rebuilt, and is not what it was.
            EnvironmentFailure: before `reset`, or the engine dies of the action or fails at it.
        """
        before, live = self._here(), self._live
        self._live = None  # until the step has succeeded, the world may be anywhere
        self._live, place = self._engines.step(live, before, action)
        self._said = place
        if place.shown.known:
            self._kind = "number" if _NUMBER.fullmatch(action) else action.split()[0].lower()
            self._place = place
        else:
            self._kind = "invalid"
        return self._observation(place, before)

    def fork(self) -> ScienceWorldEnvironment:
        """An independent continuation: a copy of the world."""
        twin = ScienceWorldEnvironment(self._engines, self._rules)
        twin._place, twin._said, twin._kind = self._place, self._said, self._kind
        if self._place is not None:
            self._live, twin._live = self._engines.fork(self._live, self._place)
        return twin

    def state_key(self) -> str:
        """Verb of the last action, the engine's text, the room and what the agent carries."""
        shown = self._here().shown
        assert self._said is not None
        return "\n".join((self._kind, self._said.shown.text, shown.room, shown.inventory))

    def close(self) -> None:
        """Let go of the world."""
        self._place = self._said = self._live = None
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
        """Answer about a place that this episode stands, or once stood, at."""
        if place is not self._place:
            return self._engines.tell(None, place, question)[1]
        self._live, answer = self._engines.tell(self._live, place, question)
        return answer


class _Answers:
    """What can be said about a place, asked for once."""

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
        """What OBJ may be, then the forms of actions; while the engine asks which of several was meant, the numbers."""
        if self._brief is None:
            forms, _, names = "\n".join(self._tell("sight")).partition("\n\n")
            named = ("OBJ is one of: " + ", ".join(names.split("\n")),) if names else ()
            self._brief = (*named, *forms.split("\n"))
        return self._brief
