"""Resampling of steps whose action was already taken in the same state.

Resampling and on-policyness: a step that is drawn again until its action is a new one comes from the policy *given* that the
action is new. Its probabilities are p(a) / (1 - p(actions taken)). Its log-probabilities are stored as the policy's own, so
the importance ratio starts at 1, while the group's outcomes are those of a policy that avoids the actions already taken:
estimates of the siblings' values lean towards the rarer actions. Later steps are on-policy. The tokens of a discarded
completion are counted in `Cost.generated` and in `Cost.discarded`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from spark_rl.common.seeding import derive
from spark_rl.types import Completion, Cost, Parsed, Request

__all__ = ["TRIES", "Ask", "resample"]

TRIES = 4
"""How often a repeated action is drawn again. After that the action stays, because a policy that is sure gives no other."""

Ask = Callable[[int, Sequence[Request], Sequence[int]], Awaitable[list[list[Completion]]]]
"""Asks the policy: number of the attempt, requests, and for each the position of the request that it repeats."""


async def resample(
    ask: Ask,
    requests: Sequence[Request],
    answers: list[list[Completion]],
    taken: Mapping[int, set[str]],
    read: Callable[[str], Parsed],
) -> None:
    """Draw a completion again, at most `TRIES` times, while its action has already been taken in its state.

    Args:
        ask: asks the policy again with other seeds.
        requests: the original requests.
        answers: the answers, changed in place; a new completion carries the cost of those that it replaces.
        taken: for the requests (by position) that exclude actions, those taken so far; accepted ones are added. Requests
            that continue one state share one set.
        read: parses a completion (`Prompt.parse`).
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
        drawn = await ask(attempt + 1, again, list(repeats))
        for (index, numbers), completions in zip(repeats.items(), drawn, strict=True):
            for number, completion in zip(numbers, completions, strict=True):
                answers[index][number] = _instead(answers[index][number], completion)
        waiting = [(index, number) for index, numbers in repeats.items() for number in numbers]


def _again(request: Request, numbers: Sequence[int], attempt: int) -> Request:
    """The same request for some of its samples, with other seeds."""
    seeds = tuple(derive(request.seeds[number], "again", attempt) for number in numbers)
    children = tuple(request.children[number] for number in numbers) if request.children else ()
    return replace(request, seeds=seeds, children=children)


def _instead(old: Completion, new: Completion) -> Completion:
    """A completion with the cost of the one that it replaces."""
    return replace(new, cost=new.cost + old.cost + Cost(discarded=len(old.ids or ())))
