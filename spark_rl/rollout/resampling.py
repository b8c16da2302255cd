"""Asking a policy for completions, and asking again where an action is not to be taken twice.

Resampling and on-policyness: a step drawn again until its action is a new one comes from the policy *given* that the action
is new, whose probabilities are p(a) / (1 - p(actions taken)). Its log-probabilities are stored as the policy's own, so the
importance ratio starts at 1, while the group's outcomes are those of a policy that avoids what was tried: estimates of its
siblings' value lean towards the rarer actions. Steps after it are on-policy. What was thrown away was still generated: its
tokens are in `Spent.generated`, and again in `Spent.discarded`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from spark_rl.common.seeding import derive
from spark_rl.contracts import Environment, Policy
from spark_rl.errors import PolicyFailure
from spark_rl.prompting.parsing import parse
from spark_rl.types import Completion, Parsed, Request, Spent

__all__ = ["TRIES", "accepted", "ask", "resample"]

TRIES = 4
"""How often a repeated action is drawn again; then it stays (where the policy is sure, nothing else will come)."""


async def ask(policy: Policy, requests: Sequence[Request]) -> list[list[Completion]]:
    """The policy's answers, counted.

    Raises:
        PolicyFailure: a request has not as many completions as seeds.
    """
    await asyncio.sleep(0)  # a policy that never waits would let no interruption through until the forest is grown
    answers = await policy.sample(requests)
    if [len(answer) for answer in answers] != [request.n for request in requests]:
        raise PolicyFailure("the policy did not answer every request with as many completions as were asked for")
    return answers


def accepted(answer: list[Completion], state: Environment) -> list[Completion]:
    """The completions for a state, none of them refused; else the state is closed.

    Raises:
        PolicyFailure: one was refused.
    """
    for completion in answer:
        if completion.refused:
            state.close()
            raise PolicyFailure(completion.refused)
    return answer


async def resample(
    policy: Policy,
    requests: Sequence[Request],
    answers: list[list[Completion]],
    taken: Mapping[int, set[str]],
    spent: Spent,
    read: Callable[[str], Parsed] = parse,
) -> None:
    """Draw completions again, at most `TRIES` times each, whose action has been taken in their state.

    Args:
        policy: is asked again with other seeds.
        requests: what was asked.
        answers: the answers, changed in place.
        taken: for the requests (by position) that exclude actions, those taken so far; accepted ones are added. Requests
            that continue one state share one set.
        spent: `discarded` is charged with the tokens thrown away.
        read: how a completion is read (`Prompt.parse`).
    """
    waiting = [(index, number) for index in taken for number in range(requests[index].n)]
    for attempt in range(TRIES + 1):
        repeats: dict[int, list[int]] = {}
        for index, number in waiting:
            action = read(answers[index][number].text).action
            if action in taken[index]:
                repeats.setdefault(index, []).append(number)
            taken[index].add(action)
        if not repeats or attempt == TRIES:
            return
        again = [_again(requests[index], numbers, attempt) for index, numbers in repeats.items()]
        for (index, numbers), completions in zip(repeats.items(), await ask(policy, again), strict=True):
            for number, completion in zip(numbers, completions, strict=True):
                spent.discarded += len(answers[index][number].ids or ())
                answers[index][number] = completion
        waiting = [(index, number) for index, numbers in repeats.items() for number in numbers]


def _again(request: Request, numbers: Sequence[int], attempt: int) -> Request:
    """The same request for some of its samples, with other seeds."""
    seeds = tuple(derive(request.seeds[number], "again", attempt) for number in numbers)
    children = tuple(request.children[number] for number in numbers) if request.children else ()
    return replace(request, seeds=seeds, children=children)
