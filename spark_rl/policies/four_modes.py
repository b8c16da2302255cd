"""RLVMR's four modes (arXiv 2507.22844) for policies with SPARK's two modes: demonstrations for RLVMR without a teacher.

Invariant: the actions are those of the other policy. Mode and reasoning follow from the step alone, by the first rule that
applies; each rule follows the description of the mode in RLVMR's instructions:

| the step | mode | reasoning |
|---|---|---|
| follows a refused action | `reflection` | the policy's, after "That did not work." |
| is the first step | `planning` | the world's `plan`, else the policy's |
| is in explore mode | `explore` | the policy's |
| is any other step | `monitor` | the policy's |

In RLVMR a language model writes all of this. No step plans again here, since the plan of an expert does not fail.
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
    """The policy in the modes of the prompt.

    Args:
        policy: a policy in SPARK's modes.
        prompt: names the modes.
        world: may have plans for tasks.
    """
    if prompt.modes == "spark":
        return policy
    return FourModes(policy, world.plan if isinstance(world, WithPlan) else None)


@dataclass
class FourModes:
    """Another policy, whose explore and think modes become planning, explore, reflection and monitor."""

    policy: Policy
    plan: Callable[[Task], str] | None = None
    """A task's steps in words; None takes the policy's own reasoning at the first step."""

    @property
    def in_rounds(self) -> bool:
        """Whether the other policy wants large batches."""
        return in_rounds(self.policy)

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The policy's completions with other tags; malformed completions stay as they are."""
        answers = await self.policy.sample(requests)
        return [[self._retagged(request, one) for one in answer] for request, answer in zip(requests, answers, strict=True)]

    def _retagged(self, request: Request, completion: Completion) -> Completion:
        parsed = parse(completion.text)
        if not parsed.well_formed:
            return completion
        if not request.observation.admissible:
            text = respond("reflection", f"That did not work. {parsed.reasoning}", parsed.action)
        elif not request.history:
            text = respond("planning", self.plan(request.task) if self.plan else parsed.reasoning, parsed.action)
        else:
            text = respond("explore" if parsed.mode == "explore" else "monitor", parsed.reasoning, parsed.action)
        return Completion(text, refused=completion.refused, cost=completion.cost)
