"""Games whose positions are values: an episode and an expert, whatever the game.

Invariants
----------
* A position is frozen and holds all there is to the game, coming luck included: a fork keeps a reference, nothing is copied.
* An action that is refused changes nothing; the answer says so and shows the position again, so that the latest
  observation always says where one stands.
* An expert's decision is a function of the position and of the sample's seed, and the position one of task and actions: it
  keeps no memory and continues any path, whoever began it.

A game is a class of positions (`Position`) and a function from tasks to first positions; its world hands both out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, Self, TypeVar

from spark_rl.environments.searching import Decision, said
from spark_rl.errors import EnvironmentFailure
from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Observation, Request, Task

__all__ = ["NOTHING_HAPPENS", "GameEnvironment", "GameExpert", "Position"]

NOTHING_HAPPENS = "Nothing happens."


class Position(Protocol):
    """Where a game stands; a frozen value."""

    @property
    def text(self) -> str:
        """All that the player may know."""
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
        """What the step that led here pays."""
        ...

    @property
    def idle(self) -> float:
        """What a refused action pays."""
        ...

    @property
    def progress(self) -> Mapping[str, float]:
        """See `Observation.progress`."""
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
        """An independent continuation; shares the position."""
        other = GameEnvironment(self._start)
        other._position = self._position
        return other

    def state_key(self) -> str:
        """What one sees, which is all there is to a position that one can know."""
        return self.position.text

    def close(self) -> None:
        """Nothing to release."""

    @property
    def position(self) -> P:
        """Where the game stands.

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
    """Plays a game from its positions; `tags` says which steps are in explore mode: see `searching.said`."""

    start: Callable[[Task], P]
    decide: Callable[[P, random.Random], Decision]
    """What to do and why; the generator serves what is open."""
    tags: Literal["sparse", "dense"] = "sparse"
    slip: Callable[[P], Decision | None] = lambda _: None
    """A beginner's mistake here that does not yet lose the game, if there is one."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """One decision for each seed of each request."""
        return [self._answers(request) for request in requests]

    def mistake(self, request: Request) -> Completion | None:
        """A beginner's mistake, for demonstrations of how to recover; None where there is none to make."""
        decision = self.slip(self._reached(request))
        return decision and Completion(respond("think", decision.reason, decision.action))

    def _answers(self, request: Request) -> list[Completion]:
        position, first = self._reached(request), not request.history
        decisions = (self.decide(position, random.Random(seed)) for seed in request.seeds)
        return [said(decision, self.tags, first=first) for decision in decisions]

    def _reached(self, request: Request) -> P:
        position = self.start(request.task)
        for action in request.history:
            position = position.after(action) or position
        return position
