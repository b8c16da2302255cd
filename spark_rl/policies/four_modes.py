"""RLVMR's four modes (arXiv 2507.22844) for policies that know two: how its cold start is demonstrated without a teacher.

Invariant: the actions are the other policy's. Mode and words follow from the step alone, by the first rule that applies,
each being what RLVMR's instructions say the mode is for:

| the step | says | in the words of |
|---|---|---|
| follows one that was refused | `reflection` | the policy, after "That did not work." |
| is the first | `planning` | the world's `plan`, else the policy |
| explores | `explore` | the policy |
| is any other | `monitor` | the policy |

RLVMR has a model write all of this; nobody replans here, since no plan of an expert turns out wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spark_rl.contracts import Policy, WithPlan, World
from spark_rl.policies.pace import in_rounds
from spark_rl.prompting.parsing import parse, respond
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Completion, Request, Task

__all__ = ["FourModes", "in_modes"]


def in_modes(policy: Policy, prompt: Prompt, world: World) -> Policy:
    """A policy that explores and thinks, in the modes that the prompt asks for."""
    if prompt.modes == "spark":
        return policy
    return FourModes(policy, world.plan if isinstance(world, WithPlan) else None)


@dataclass
class FourModes:
    """Another policy, its explore and think said as planning, explore, reflection and monitor."""

    policy: Policy
    plan: Callable[[Task], str] | None = None
    """A task's steps in words; None lets the policy say why it begins as it does."""

    @property
    def in_rounds(self) -> bool:
        """As the policy wants it."""
        return in_rounds(self.policy)

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The policy's answers with other tags; what is not well-formed stays as it is."""
        answers = await self.policy.sample(requests)
        return [[self._said(request, one) for one in answer] for request, answer in zip(requests, answers, strict=True)]

    def _said(self, request: Request, completion: Completion) -> Completion:
        meant = parse(completion.text)
        if not meant.well_formed:
            return completion
        if not request.observation.admissible:
            text = respond("reflection", f"That did not work. {meant.reasoning}", meant.action)
        elif not request.history:
            text = respond("planning", self.plan(request.task) if self.plan else meant.reasoning, meant.action)
        else:
            text = respond("explore" if meant.mode == "explore" else "monitor", meant.reasoning, meant.action)
        return Completion(text, refused=completion.refused, cost=completion.cost)
