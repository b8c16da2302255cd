"""Games whose positions are values: the environment and the expert of any such game.

Invariants
----------
* A position is frozen and holds the whole game, future chance included: a fork shares the position and copies nothing.
* A refused action changes nothing. Its observation says so and repeats the position, so that the latest observation always
  describes the position.
* An expert's decision depends on the position and the sample's seed alone, and the position on the task and the actions.
  The expert has no memory, and continues the path of any other policy.

A game consists of a class of positions (`Position`) and a function from tasks to first positions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, Self, TypeVar

from spark_rl.environments.searching import Decision, completion
from spark_rl.errors import EnvironmentFailure
from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Observation, Request, Task

__all__ = ["NOTHING_HAPPENS", "GameEnvironment", "GameExpert", "Position"]

NOTHING_HAPPENS = "Nothing happens."


class Position(Protocol):
    """A position of a game; a frozen value."""

    @property
    def text(self) -> str:
        """The observation: all that the player may know."""
        ...

    @property
    def done(self) -> bool:
        """Whether the game is over."""
        ...

    @property
    def won(self) -> bool:
        """Whether the task is solved."""
        ...

    @property
    def reward(self) -> float:
        """Reward of the step that led here."""
        ...

    @property
    def idle(self) -> float:
        """Reward of a refused action."""
        ...

    @property
    def progress(self) -> Mapping[str, float]:
        """Measures of progress, as in `Observation.progress`."""
        ...

    def actions(self) -> tuple[str, ...]:
        """The admissible actions, in a fixed order; none at the end."""
        ...

    def after(self, action: str) -> Self | None:
        """The next position, or None where the action is not admissible."""
        ...


P = TypeVar("P", bound=Position)


class GameEnvironment(Generic[P]):
    """One episode of a game."""

    fork_cost: Literal["cheap", "replay"] = "cheap"

    def __init__(self, start: Callable[[Task], P]) -> None:
        self._start = start
        self._position: P | None = None

    def reset(self, task: Task) -> Observation:
        """Start the task.

        Raises:
            UsageError: the task is not one of this world's.
        """
        self._position = self._start(task)
        return self._observe(self._position)

    def step(self, action: str) -> Observation:
        """Carry out one action, or change nothing when it is not admissible."""
        position = self.position
        after = position.after(action)
        if after is None:
            text = f"{NOTHING_HAPPENS}\n{position.text}"
            done, won = position.done, position.won
            reward = 0.0 if done else position.idle
            return Observation(text, position.actions, reward, done, won, admissible=False, progress=position.progress)
        self._position = after
        return self._observe(after)

    def fork(self) -> GameEnvironment[P]:
        """An independent continuation, which shares the position."""
        other = GameEnvironment(self._start)
        other._position = self._position
        return other

    def state_key(self) -> str:
        """The text of the position, which is all that a player can know of it."""
        return self.position.text

    def close(self) -> None:
        """Nothing to release."""

    @property
    def position(self) -> P:
        """The present position.

        Raises:
            EnvironmentFailure: before `reset`.
        """
        if self._position is None:
            raise EnvironmentFailure("the game was asked for a step before reset(task)")
        return self._position

    @staticmethod
    def _observe(position: Position) -> Observation:
        reward, progress = position.reward, position.progress
        return Observation(position.text, position.actions, reward, position.done, position.won, progress=progress)


@dataclass
class GameExpert(Generic[P]):
    """An expert that decides from the position of a game."""

    start: Callable[[Task], P]
    """The first position of a task."""
    decide: Callable[[P, random.Random], Decision]
    """The decision at a position; the generator decides between equally good actions."""
    tags: Literal["sparse", "dense"] = "sparse"
    """Which steps are in explore mode: see `searching.completion`."""
    slip: Callable[[P], Decision | None] = lambda _: None
    """A beginner's mistake at a position that does not yet lose the game; None where there is none."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """One decision for each seed of each request."""
        return [self._answers(request) for request in requests]

    def mistake(self, request: Request) -> Completion | None:
        """A beginner's mistake, for demonstrations of how to recover; None where `slip` has none."""
        decision = self.slip(self._reached(request))
        return decision and Completion(respond("think", decision.reason, decision.action))

    def _answers(self, request: Request) -> list[Completion]:
        position, first = self._reached(request), not request.history
        decisions = (self.decide(position, random.Random(seed)) for seed in request.seeds)
        return [completion(decision, self.tags, first=first) for decision in decisions]

    def _reached(self, request: Request) -> P:
        position = self.start(request.task)
        for action in request.history:
            position = position.after(action) or position
        return position
