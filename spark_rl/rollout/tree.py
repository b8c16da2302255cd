"""One tree while it grows: a coroutine that waits only for its own answers.

Invariants
----------
* A finished trajectory and a step at the horizon are never forked.
* Every step that was carried out is a node: `Spent.env_steps` is the number of nodes (of trees that did not fail).
* Every sample's seed comes from (run seed, iteration, task, path), the rule's generator from (run seed, iteration, task). So
  a tree does not depend on other trees.
* An error of an environment drops its tree, which is named and counted. Wrong settings still stop the run.

A round takes the open continuations, samples a completion for each, carries out each action in its own copy of the state,
and asks the rule where to fork. `grow` opens the roots; `extend` opens forks that were planned for the whole forest. Both
run rounds until no continuation is open.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from spark_rl.common.seeding import derive
from spark_rl.contracts import Encoder, Environment, Growth, World
from spark_rl.errors import MissingExtra, PromptTooLong, UsageError
from spark_rl.rollout.asking import LAST, Answers, Asking
from spark_rl.rollout.clock import Clock
from spark_rl.rollout.grown import Grown, may_fork
from spark_rl.rollout.ledger import Ledger
from spark_rl.rollout.resampling import resample
from spark_rl.rollout.states import KEPT_STATES, States
from spark_rl.rollout.steps import Open, accepted, carry_out, excluded, overlapping, read, record, request_of
from spark_rl.types import Completion, Fork, Observation, Request, Spent, Tree

__all__ = ["Grove", "GrowingTree"]


@dataclass
class Grove:
    """What the trees of a forest share."""

    world: World
    growth: Growth
    encoder: Encoder | None
    ledger: Ledger
    trees: int
    """Number of trees; each stores its share of the states."""
    clock: Clock
    """Other groves may share it: then a phase of theirs is one with a phase of this one."""
    spent: Spent
    """Counts what the trees cost."""


@dataclass
class _Guard:
    """Turns an error of an environment into one dropped, named tree, and counts the block as time of the environment."""

    task: str
    clock: Clock
    failed: str = ""
    """Why the tree was dropped; empty for a tree that was not."""

    @contextmanager
    def __call__(self) -> Generator[None]:
        try:
            with self.clock.phase("environment"):
                yield
        except (UsageError, MissingExtra, PromptTooLong):
            raise
        except Exception as error:
            self.failed = self.failed or f"{self.task}: {type(error).__name__}: {error}"


@dataclass
class _Branch:
    """One sampled step that may still be continued."""

    node: int
    state: Environment
    observation: Observation


class GrowingTree:
    """A tree, with the state of the rollout that its record does not hold."""

    def __init__(self, start: Grown, grove: Grove, states: States | None = None) -> None:
        """A tree that begins, or goes on from its record (changed in place) and from stored states."""
        self.index, self.name, self.tree, self.grove = start.index, start.name, start.tree, grove
        self.rounds, self.pending = start.rounds, 0
        """Finished rounds, and open continuations."""
        self._open: list[Open] = []
        self._guarded = _Guard(self.tree.task.id, grove.clock, start.failed)
        self._rng = random.Random(derive(*start.name, "branching"))
        if start.draws is not None:
            self._rng.setstate(start.draws)
        self.states = states or States(grove.world, KEPT_STATES // max(grove.trees, 1))
        self._born = _children(self.tree)
        """Children created so far of each node; the last entry is the roots."""

    def record(self) -> Grown:
        """The tree as another process can go on with it; not copied."""
        return Grown(self.index, self.name, self.tree, self.rounds, self.failed, self._rng.getstate())

    @property
    def failed(self) -> str:
        """Why the tree was dropped; empty for a tree that was not."""
        return self._guarded.failed

    async def grow(self, asking: Asking, after_round: Callable[[], None]) -> None:
        """Reset a new environment, open the roots, and grow until no continuation is open."""
        shape = self.grove.growth.shape
        with self._guarded():
            environment = self.grove.world.make()
            first = await overlapping(environment, lambda: environment.reset(self.tree.task))
            self.tree.observation = first.text
            self.tree.actions = first.shown if self.grove.growth.prompt.list_actions else ()
            self.grove.ledger.grant(self.index, self.tree, shape.roots)
            self._open.append(Open(-1, shape.roots, environment, first))
        await self._run(asking, after_round)

    async def extend(self, forks: Sequence[tuple[int, Fork]], asking: Asking, after_round: Callable[[], None]) -> None:
        """Open granted forks, each with its place in the plan, and grow until no continuation is open."""
        with self._guarded():
            for rank, fork in forks:
                self._reopen(fork, rank)
        await self._run(asking, after_round)

    def close(self) -> None:
        """Close every state."""
        with self._guarded():
            self.states.close()
        for item in self._open:
            with self._guarded():
                item.state.close()
        self._open, self.pending = [], 0

    async def _run(self, asking: Asking, after_round: Callable[[], None]) -> None:
        """Run rounds until no continuation is open or the environment has failed."""
        turn = 0
        try:
            while self._open and not self.failed:
                await self._round(asking, turn)
                turn, self.rounds = turn + 1, self.rounds + 1
                after_round()
        finally:
            asking.leave(self.index)
        if self.failed:
            self.close()

    async def _round(self, asking: Asking, turn: int) -> None:
        """Sample every open continuation, carry the actions out, and ask the rule where to fork."""
        items, self._open = self._open, []
        self.pending = sum(item.count for item in items)
        answers, requests = await self._answers(items, asking, turn)
        branches: list[_Branch] = []
        for item, request, answer in zip(items, requests, answers, strict=True):
            with self._guarded():
                branches += await self._steps(item, request, accepted(answer, item.state))
        if self.grove.ledger.shared(self.grove.growth.branching):
            await asking.ask(self.index, (turn, LAST), (), ())  # trees take from the common budget in their order
        with self.grove.clock.phase("environment"):
            self._fork(branches)
        self.pending = sum(item.count for item in self._open)

    async def _answers(self, items: Sequence[Open], asking: Asking, turn: int) -> tuple[Answers, list[Request]]:
        """The policy's answers for the open continuations, and the requests. The cost of every completion is charged."""
        with self.grove.clock.phase("prompt"):
            requests: list[Request] = []
            for item in items:
                requests.append(request_of(self.tree, self.index, self.name, item, self._born[item.parent], self.grove))
                self._born[item.parent] += item.count
        answers = await asking.ask(self.index, (turn, 0), requests, [item.rank for item in items])
        if taken := excluded(self.tree, items):

            async def again(attempt: int, some: Sequence[Request], of: Sequence[int]) -> Answers:
                return await asking.ask(self.index, (turn, attempt), some, [items[index].rank for index in of])

            await resample(again, requests, answers, taken, self.grove.growth.prompt.parse)
        for answer in answers:
            for completion in answer:
                self.grove.spent.charge(completion.cost)
        return answers, requests

    async def _steps(self, item: Open, request: Request, answer: Sequence[Completion]) -> list[_Branch]:
        """Carry out each sampled action in its own copy of the state, and record the steps."""
        prompt, spent = self.grove.growth.prompt, self.grove.spent
        parsed = [prompt.parse(completion.text) for completion in answer]
        actions = [one.action for one in parsed]
        taken = await overlapping(item.state, lambda: carry_out(item, actions, show=prompt.list_actions))
        spent.env_forks += item.count - 1
        spent.env_steps += item.count
        if item.state.fork_cost == "cheap":
            self.states.keep(item.parent, item.state, item.observation, spent)
        ids = read(self.tree, item, request)
        branches: list[_Branch] = []
        for number, (completion, meaning) in enumerate(zip(answer, parsed, strict=True)):
            self.tree.nodes.append(record(item, request, ids, number, completion, meaning, taken))
            self._born.insert(-1, 0)
            branches.append(_Branch(len(self.tree.nodes) - 1, taken.states[number], taken.observations[number]))
        return branches

    def _fork(self, branches: Sequence[_Branch]) -> None:
        """Ask the rule about every new step, and open the continuations."""
        # The budget is first come, first served. The order is random, so that no root is favoured.
        for branch in self._rng.sample(branches, len(branches)):
            with self._guarded():
                if not self.failed and may_fork(self.tree, branch.node):
                    self._wish(branch)
                else:
                    branch.state.close()

    def _wish(self, branch: _Branch) -> None:
        """Ask the rule about a new step and open its continuations."""
        extra, exclude, ledger = 0, False, self.grove.ledger
        fork = self.grove.growth.branching.after_step(self.tree, self.index, branch.node, self._rng)
        if fork is not None and (
            granted := ledger.grant(self.index, self.tree, fork.extra, finished=_uncharged(self.tree, ledger))
        ):
            self.tree.forks.append(replace(fork, extra=granted))
            if fork.at == "after":
                extra, exclude = granted, fork.exclude
            else:
                self._reopen(replace(fork, node=branch.node, extra=granted))
        self._open.append(Open(branch.node, 1 + extra, branch.state, branch.observation, exclude))

    def _reopen(self, fork: Fork, rank: int = 0) -> None:
        """Open a granted fork from an earlier state."""
        parent = -1 if fork.node is None else fork.node
        if fork.node is not None and fork.at == "decision":
            parent = self.tree.nodes[fork.node].parent
        state, observation = self.states.reach(self.tree, parent, self.grove.spent)
        self._open.append(Open(parent, fork.extra, state, observation, fork.exclude, rank))


def _children(tree: Tree) -> list[int]:
    """How many children each node has; the last entry is how many roots there are."""
    born = Counter(node.parent for node in tree.nodes)
    return [*(born[node] for node in range(len(tree.nodes))), born[-1]]


def _uncharged(tree: Tree, ledger: Ledger) -> int:
    """Finished leaves that are not charged to the budget any more."""
    return sum(not may_fork(tree, node) for node in range(len(tree.nodes))) if ledger.counts_active else 0
