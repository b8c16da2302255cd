"""The planner as a policy: it wins from any state, whoever led there, since it sees all that the engine knows.

Invariant
---------
What it says wins from the state of the path, in the planner's own plan; it is not the agent's knowledge that guides it.

Mechanism
---------
A path is played again in an engine, planned for once, and the plan is followed as long as the path does. The planner is
given only the choices that can matter (`essential`): what the goal does not name need not be picked up. That makes a plan
a matter of 0.1 s, where the whole game takes seconds and now and then minutes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from spark_rl.environments.alfworld.engine import LOCK, engine_for
from spark_rl.environments.alfworld.games import Games
from spark_rl.environments.alfworld.walkthrough import Tags, explain
from spark_rl.errors import PolicyFailure
from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Request

__all__ = ["PlannerExpert", "essential"]

PLANS = 4096
"""Paths whose plan is kept, the oldest dropped first."""
_PICKUPABLE = re.compile(r"\(pickupable\s+(\S+)\)")
_TYPED = re.compile(r"\(objectType\s+([^?\s]\S*)\s+(\w+)\)")
_ASKED = re.compile(r"\(objectType\s+\?\S+\s+(\w+)\)")


@dataclass
class PlannerExpert:
    """Follows the planner, and gives a step the mode and the reason that `walkthrough.explain` gives it."""

    games: Games
    tags: Tags = "sparse"
    limit: int = 32
    """Most engines of this process."""
    memoise: bool = True
    _plans: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = field(
        default_factory=dict[tuple[str, tuple[str, ...]], tuple[str, ...]], init=False, repr=False
    )
    """What is left to do, by task and path."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The same next step for each sample of a request.

        Raises:
            PolicyFailure: nothing wins from here.
        """
        return [[Completion(self._answer(request))] * request.n for request in requests]

    def _answer(self, request: Request) -> str:
        task, path = request.task.id, request.history
        plan = self._plans.get((task, path)) or self._plan(task, path)
        self._keep(task, path, plan)
        self._keep(task, (*path, plan[0]), plan[1:])
        mode, reason = explain((*path, *plan), len(path), request.observation.text, self.tags)
        return respond(mode, reason, plan[0])

    def _plan(self, task: str, path: tuple[str, ...]) -> tuple[str, ...]:
        with LOCK:
            engine = engine_for(self.games, task, limit=self.limit, memoise=self.memoise)
            engine.start()
            for action in path:
                engine.step(action)
            plan = engine.plan(essential)
        if not plan:
            raise PolicyFailure(f'the planner finds nothing that wins "{task}" after {list(path)}')
        return plan

    def _keep(self, task: str, path: tuple[str, ...], plan: tuple[str, ...]) -> None:
        self._plans[task, path] = plan
        if len(self._plans) > PLANS:
            del self._plans[next(iter(self._plans))]


def essential(problem: str, held: Collection[str]) -> str:
    """A game's problem in which only things of the types that the goal names, and what is held, can be picked up.

    It has a plan wherever the game has one: no other thing stands in the way of one.
    """
    start, goal = problem[: (split := problem.rindex("(:goal"))], problem[split:]
    asked = set(_ASKED.findall(goal))
    kept = {name.lower() for name, kind in _TYPED.findall(start) if kind in asked} | {name.lower() for name in held}
    return _PICKUPABLE.sub(lambda fact: fact[0] if fact[1].lower() in kept else "", start) + goal
