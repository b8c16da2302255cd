"""How the trees of a forest ask the policy: each by itself, or in rounds.

Invariants
----------
* A tree gets its own answers, in the order of its requests, whichever other trees ask at the same time.
* In rounds, the policy is called when every tree that is still growing waits for it, with the requests of these trees as one
  batch. The batch's order is a function of the trees alone. So an engine in this process gets large batches, and the same
  forest gives the same bits.
* A tree that asks by itself does not wait for other trees: it asks for its next step as soon as its environment answers.

In rounds, the waiting trees with the lowest turn are served first. So trees that draw completions again (`resampling`) are
served before those that wait for their next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from spark_rl.contracts import Policy
from spark_rl.errors import PolicyFailure
from spark_rl.rollout.clock import Clock
from spark_rl.types import Completion, Request

__all__ = ["LAST", "Alone", "Answers", "Asking", "Rounds", "Turn"]

Turn = tuple[int, int]
"""Number of the tree's round in this phase of growth, and of the attempt in it."""
LAST = 10**6
"""An attempt after all others of a round."""
Answers = list[list[Completion]]
"""For each request, its completions in the order of its seeds."""


class Asking(Protocol):
    """How trees reach the policy during one phase of growth."""

    async def ask(self, tree: int, turn: Turn, requests: Sequence[Request], ranks: Sequence[int]) -> Answers:
        """Answers to the requests of a tree.

        Args:
            tree: its index.
            turn: the tree's round and attempt.
            requests: what to sample; an empty list waits until no tree is at an earlier turn.
            ranks: place of each request in the batch of a round; equal ranks keep the order of the trees.

        Raises:
            PolicyFailure: a request was not answered with as many completions as seeds.
        """
        ...

    def leave(self, tree: int) -> None:
        """The tree asks nothing more in this phase."""
        ...


async def _sample(policy: Policy, clock: Clock, requests: Sequence[Request]) -> Answers:
    """The policy's answers, counted and timed."""
    await asyncio.sleep(0)  # a policy that never waits would let no interruption through until the forest is grown
    with clock.phase("generate"):
        answers = await policy.sample(requests)
    if [len(answer) for answer in answers] != [request.n for request in requests]:
        raise PolicyFailure("the policy did not answer every request with as many completions as were asked for")
    return answers


@dataclass
class Alone:
    """Each tree asks by itself."""

    policy: Policy
    clock: Clock

    async def ask(self, tree: int, turn: Turn, requests: Sequence[Request], ranks: Sequence[int]) -> Answers:
        """Ask the policy at once."""
        return await _sample(self.policy, self.clock, requests)

    def leave(self, tree: int) -> None:
        """Do nothing: no other tree waits for this one."""


@dataclass
class _Waiting:
    """A tree that waits for its answers."""

    turn: Turn
    requests: Sequence[Request]
    ranks: Sequence[int]
    answers: asyncio.Future[Answers]


@dataclass
class Rounds:
    """Trees ask together. `serve` must run at the same time as the trees."""

    policy: Policy
    clock: Clock
    trees: list[int]
    """Indices of the trees that are still growing, in the order in which they stand in a batch."""
    after_round: Callable[[], None] = lambda: None
    """Called when all trees have carried out a round."""
    _waiting: dict[int, _Waiting] = field(default_factory=dict[int, _Waiting])
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, tree: int, turn: Turn, requests: Sequence[Request], ranks: Sequence[int]) -> Answers:
        """Wait for the tree's turn, then return its answers."""
        waiting = _Waiting(turn, requests, ranks, asyncio.get_running_loop().create_future())
        self._waiting[tree] = waiting
        self._changed.set()
        return await waiting.answers

    def leave(self, tree: int) -> None:
        """Stop waiting for this tree."""
        self.trees.remove(tree)
        self._changed.set()

    async def serve(self) -> None:
        """Answer round by round, until every tree has left."""
        current = 0
        while self.trees:
            if len(self._waiting) < len(self.trees):
                await self._changed.wait()
                self._changed.clear()
                continue
            turn = min(waiting.turn for waiting in self._waiting.values())
            if turn[0] > current:
                current = turn[0]
                self.after_round()
            await self._serve([tree for tree in self.trees if self._waiting[tree].turn == turn])
        self.after_round()

    async def _serve(self, trees: list[int]) -> None:
        """Answer these trees as one batch."""
        served = [self._waiting[tree] for tree in trees]
        order = [(place, number) for place, one in enumerate(served) for number in range(len(one.requests))]
        order.sort(key=lambda one: served[one[0]].ranks[one[1]])  # stable
        answers: list[list[list[Completion]]] = [[[] for _ in one.requests] for one in served]
        if order:
            batch = [served[place].requests[number] for place, number in order]
            for (place, number), answer in zip(order, await _sample(self.policy, self.clock, batch), strict=True):
                answers[place][number] = answer
        for tree, one, answer in zip(trees, served, answers, strict=True):
            del self._waiting[tree]
            one.answers.set_result(answer)
