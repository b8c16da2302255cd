"""The planner as a policy: it wins from any state, since it knows the full state of the engine.

Invariant
---------
Each action is the next one of a plan of the planner that wins from the state of the path. The plan uses the full state, and
not only the agent's observations.

Mechanism
---------
A path is played again in an engine and planned once; the plan serves later requests as long as the path follows it.
The planner gets a smaller problem (`essential`) in which only things of the goal's types can be picked up. A plan thus takes
0.1 s, where the whole game takes seconds and sometimes minutes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from spark_rl.environments.alfworld.engine import LOCK, Engines
from spark_rl.environments.alfworld.walkthrough import Tags, explain
from spark_rl.errors import PolicyFailure
from spark_rl.prompting.parsing import respond
from spark_rl.types import Completion, Request

__all__ = ["PlannerExpert", "essential"]

PLANS = 4096
"""Most plans in memory; the oldest goes first."""
_PICKUPABLE = re.compile(r"\(pickupable\s+(\S+)\)")
_TYPED = re.compile(r"\(objectType\s+([^?\s]\S*)\s+(\w+)\)")
_ASKED = re.compile(r"\(objectType\s+\?\S+\s+(\w+)\)")


@dataclass
class PlannerExpert:
    """An expert that follows the planner; `walkthrough.explain` gives modes and reasons."""

    engines: Engines
    tags: Tags = "sparse"
    _plans: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = field(
        default_factory=dict[tuple[str, tuple[str, ...]], tuple[str, ...]], init=False, repr=False
    )
    """The remaining plan by task and path."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The same next step for each sample of a request.

        Raises:
            PolicyFailure: no plan wins from this state.
        """
        return [[Completion(self._answer(request))] * request.n for request in requests]

    def _answer(self, request: Request) -> str:
        task, path = request.task.id, request.history
        plan = self._plans.get((task, path)) or self._plan(task, path)
        self._store(task, path, plan)
        self._store(task, (*path, plan[0]), plan[1:])
        mode, reason = explain((*path, *plan), len(path), request.observation.text, self.tags)
        return respond(mode, reason, plan[0])

    def _plan(self, task: str, path: tuple[str, ...]) -> tuple[str, ...]:
        with LOCK:
            engine = self.engines.engine(task)
            engine.start()
            for action in path:
                engine.step(action)
            plan = engine.plan(essential)
        if not plan:
            raise PolicyFailure(f'the planner finds nothing that wins "{task}" after {list(path)}')
        return plan

    def _store(self, task: str, path: tuple[str, ...], plan: tuple[str, ...]) -> None:
        self._plans[task, path] = plan
        if len(self._plans) > PLANS:
            del self._plans[next(iter(self._plans))]


def essential(problem: str, held: Collection[str]) -> str:
    """A game's problem, reduced: only things of the goal's types, and the things in hand, can be picked up.

    The reduced problem has a plan wherever the game has one, since no other thing is in the way of a plan.

    Args:
        problem: text of the problem.
        held: ids of the things in hand.
    """
    start, goal = problem[: (split := problem.rindex("(:goal"))], problem[split:]
    types = set(_ASKED.findall(goal))
    things = {name.lower() for name, kind in _TYPED.findall(start) if kind in types} | {name.lower() for name in held}
    return _PICKUPABLE.sub(lambda fact: fact[0] if fact[1].lower() in things else "", start) + goal
