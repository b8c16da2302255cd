"""Voting at test time: a policy draws several completions where it explores, and one of them is executed.

Invariants
----------
* Where the first completion is in explore mode, `width` completions are drawn in this state, with the first among them, and
  one is executed. Elsewhere the first completion is executed.
* The vote forks no environment and uses no outcome, so it works for every world and every policy.
* A tie goes to the completion that was drawn first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeVar

from spark_rl.branching.checks import check_width
from spark_rl.common.seeding import derive
from spark_rl.contracts import Policy
from spark_rl.errors import PolicyFailure
from spark_rl.policies.pace import in_rounds
from spark_rl.prompting.parsing import parse
from spark_rl.types import Completion, Cost, Parsed, Request

__all__ = ["Choice", "Voting", "mean_logprob", "modal"]

Choice = Literal["majority", "likelihood"]
"""The rule that chooses a completion: the most frequent action, or the highest mean log-probability per token."""

T = TypeVar("T", bound=Hashable)


def modal(ballots: Sequence[T], votes: Sequence[Fraction] | None = None) -> T:
    """The value with the most votes; the earliest of several such values.

    Args:
        ballots: the values.
        votes: weight of each ballot; None gives each one vote.
    """
    tally: dict[T, Fraction] = {}
    for ballot, vote in zip(ballots, votes or [Fraction(1)] * len(ballots), strict=True):
        tally[ballot] = tally.get(ballot, Fraction(0)) + vote
    return max(tally, key=tally.__getitem__)


def mean_logprob(completions: Sequence[Sequence[float]]) -> float:
    """Mean log-probability of a token, in nats.

    Args:
        completions: the log-probabilities of each completion's tokens.

    Raises:
        PolicyFailure: the policy gave no log-probabilities.
    """
    if not all(completions):
        raise PolicyFailure("this policy gives no log-probabilities to choose by: use --choose majority")
    return sum(map(sum, completions)) / sum(map(len, completions))


@dataclass
class Voting:
    """Another policy, of which `width` completions are drawn in each state where it explores."""

    policy: Policy
    width: int
    choice: Choice = "majority"
    read: Callable[[str], Parsed] = parse
    """Parser of completions."""

    def __post_init__(self) -> None:
        check_width(self.width)

    @property
    def in_rounds(self) -> bool:
        """Whether the other policy wants large batches."""
        return in_rounds(self.policy)

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The policy's completions; one that explores is replaced by the choice of `width`, with the cost of all."""
        answers = await self.policy.sample(requests)
        unsure = [
            (index, number)
            for index, answer in enumerate(answers)
            for number, completion in enumerate(answer)
            if self.read(completion.text).mode == "explore"
        ]
        if not unsure:
            return answers
        more = await self.policy.sample([self._more(requests[index], number) for index, number in unsure])
        for (index, number), others in zip(unsure, more, strict=True):
            drawn = [answers[index][number], *(one for one in others if not one.refused)]
            chosen = self._choose(drawn)
            cost = sum((one.cost for one in (answers[index][number], *others)), Cost())
            cost += Cost(discarded=sum(len(one.ids or ()) for one in drawn if one is not chosen))
            answers[index][number] = replace(chosen, cost=cost)
        return answers

    def _more(self, request: Request, number: int) -> Request:
        """The request for `width - 1` more completions in place of one of its samples."""
        seeds = tuple(derive(request.seeds[number], "vote", i) for i in range(1, self.width))
        # All under one address of the cache: the next step finds there at least the prompt that they share.
        children = request.children[number : number + 1] * len(seeds)
        return replace(request, seeds=seeds, children=children)

    def _choose(self, drawn: Sequence[Completion]) -> Completion:
        if self.choice == "likelihood":
            return max(drawn, key=lambda one: mean_logprob([one.logprobs or ()]))
        actions = [self.read(one.text).action for one in drawn]
        return drawn[actions.index(modal(actions))]
