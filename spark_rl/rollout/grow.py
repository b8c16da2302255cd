"""Growing trees: the paper's algorithm 1, for every branching strategy.

Invariants
----------
* Each tree has one task; it never holds more than its cap of leaves, counting every leaf ever created, and a forest
  of T tasks never more than T * budget. (Of active leaves only, where `TreeShape.counted` says so.)
* A finished trajectory is never forked, nor a step at the horizon.
* Every step that was carried out is a node: `Spent.env_steps` is the number of nodes (of trees that did not fail).
* Growth is frontier-synchronous: each round asks the policy for all open continuations of all trees in one batch.
  Every sample's seed comes from (run seed, iteration, task, path), every strategy's generator from (run seed,
  iteration, task), so one recipe and seed grow one forest.

A round takes the open continuations (`_Open`), samples, carries out each action in its own copy of the state, and asks the
strategy where to fork. When none is left, the strategy is asked once more (`when_idle`) with all outcomes in sight.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from spark_rl.common.seeding import derive
from spark_rl.contracts import Encoder, Environment, Growth, Policy, World
from spark_rl.errors import EnvironmentFailure, MissingExtra, PromptTooLong, UsageError
from spark_rl.rollout.resampling import accepted, ask, resample
from spark_rl.rollout.states import States
from spark_rl.types import Completion, Forest, Fork, Node, Observation, Request, Spent, Task, Tree

__all__ = ["grow_forest", "grow_tree"]

Watch = Callable[[Forest, int], None]
"""Called after each round with the forest so far and how many continuations are open."""


async def grow_tree(
    task: Task,
    world: World,
    policy: Policy,
    growth: Growth,
    *,
    seed: int,
    iteration: int = 0,
    encoder: Encoder | None = None,
) -> Tree:
    """One tree for one task; see `grow_forest`."""
    forest = await grow_forest([task], world, policy, growth, seed=seed, iteration=iteration, encoder=encoder)
    return forest.trees[0]


async def grow_forest(
    tasks: Sequence[Task],
    world: World,
    policy: Policy,
    growth: Growth,
    *,
    seed: int,
    iteration: int = 0,
    encoder: Encoder | None = None,
    watch: Watch | None = None,
) -> Forest:
    """One tree for each task, all grown together.

    Args:
        tasks: one tree each; the same task twice gives two different trees.
        world: makes the environments.
        policy: proposes steps; one call a round.
        growth: shape, branching, prompt and sampling.
        seed: the run's seed.
        iteration: the training iteration; another one, other samples.
        encoder: turns messages into token ids; None for policies that read text.
        watch: called after each round.

    Returns:
        The forest, without the trees whose environment failed (they are named in `failures`).

    Raises:
        EnvironmentFailure: every tree failed.
        PromptTooLong: a task and its observation alone exceed the prompt limit.
    """
    return await _Grower(tasks, world, policy, growth, seed, iteration, encoder).run(watch)


@dataclass
class _Open:
    """A state to continue from, `count` times."""

    tree: int
    parent: int
    count: int
    state: Environment
    observation: Observation
    exclude: bool = False


@dataclass
class _Branch:
    """One sampled step that may still be continued."""

    node: int
    state: Environment
    observation: Observation


@dataclass
class _Plot:
    """A growing tree with what the rollout must remember of it and the record does not."""

    tree: Tree
    seed_name: tuple[int, int, str, int]
    rng: random.Random
    born: list[int] = field(default_factory=list[int])
    """Children created so far of each node; the last entry is the roots."""
    ended: int = 0
    """Finished leaves that are not charged to the budget any more."""
    failed: str = ""


class _Grower:
    """The state of one call of `grow_forest`."""

    def __init__(
        self,
        tasks: Sequence[Task],
        world: World,
        policy: Policy,
        growth: Growth,
        seed: int,
        iteration: int,
        encoder: Encoder | None,
    ) -> None:
        self.world, self.policy, self.growth, self.encoder = world, policy, growth, encoder
        self.forest = Forest([], iteration, seed)
        self.spent = self.forest.spent
        self.states = States(world, self.spent)
        self.pool = len(tasks) * growth.shape.budget
        self.cap = growth.shape.cap or growth.shape.budget
        self.only_active = growth.shape.counted == "active"
        self.plots: list[_Plot] = []
        self.open: list[_Open] = []
        seen: Counter[str] = Counter()
        for task in tasks:
            name = (seed, iteration, task.id, seen[task.id])
            seen[task.id] += 1
            tree = Tree(task, "", cap=self.cap, horizon=growth.shape.horizon)
            self.plots.append(_Plot(tree, name, random.Random(derive(*name, "branching")), [0]))
        self.idle_rng = random.Random(derive(seed, iteration, "idle"))

    async def run(self, watch: Watch | None) -> Forest:
        lost = getattr(self.world, "lost", int)  # a world in processes of its own says how many it has lost so far
        lost_before, clock = lost(), _Clock(self.spent)
        for index, plot in enumerate(self.plots):
            self._plant(index, plot)
        clock.lap("environment")
        before = replace(self.policy.spent, seconds=dict(self.policy.spent.seconds))
        try:
            while self.open or self._revive():
                await self._round()
                if watch:
                    watch(self._snapshot(), sum(item.count for item in self.open))
        finally:
            self.states.close()
            self._close(self.open)
        self.spent.restarts += lost() - lost_before
        for name, count in self.policy.spent.counts().items():
            setattr(self.spent, name, getattr(self.spent, name) + count - getattr(before, name))
        return self._finish()

    def _snapshot(self) -> Forest:
        return replace(self.forest, trees=[plot.tree for plot in self.plots if not plot.failed])

    def _finish(self) -> Forest:
        forest = self._snapshot()
        if self.plots and not forest.trees:
            raise EnvironmentFailure(f"every tree failed; the first: {self.forest.failures[0]}")
        for index, tree in enumerate(forest):
            tree.forks = [replace(fork, tree=index) for fork in tree.forks]
        return forest

    def _close(self, items: Sequence[_Open]) -> None:
        for item in items:
            with _Guard(self, item.tree):
                item.state.close()

    # -- planting and forking ---------------------------------------------------------------------------------------

    def _plant(self, index: int, plot: _Plot) -> None:
        """Reset a fresh environment and open the roots."""
        with _Guard(self, index):
            state = self.world.make()
            first = state.reset(plot.tree.task)
            plot.tree.observation, plot.tree.actions = first.text, self._actions(first)
            self._grant(index, self.growth.shape.roots)
            self.open.append(_Open(index, -1, self.growth.shape.roots, state, first))

    def _grant(self, index: int, wish: int) -> int:
        """Charge at most `wish` leaves to the tree's cap and the forest's pool; how many there were."""
        plot = self.plots[index]
        granted = max(0, min(wish, self.cap - (plot.tree.opened - plot.ended), self.pool))
        plot.tree.opened += granted
        self.pool -= 0 if self.only_active else granted
        return granted

    def _may_fork(self, tree: Tree, node: int) -> bool:
        return not tree.nodes[node].done and tree.nodes[node].depth < self.growth.shape.horizon

    def _wish(self, index: int, branch: _Branch) -> None:
        """Ask the strategy about a fresh step and open its continuations."""
        plot = self.plots[index]
        extra, exclude = 0, False
        fork = self.growth.branching.after_step(plot.tree, index, branch.node, plot.rng)
        if fork is not None and (granted := self._grant(index, fork.extra)):
            plot.tree.forks.append(replace(fork, extra=granted))
            if fork.at == "after":
                extra, exclude = granted, fork.exclude
            else:
                self._reopen(index, replace(fork, node=branch.node, extra=granted))
        self.open.append(_Open(index, branch.node, 1 + extra, branch.state, branch.observation, exclude))

    def _revive(self) -> bool:
        """With no leaf open: let the strategy spend what is left of the budget. Whether anything was opened."""
        if self.pool <= 0 or self.only_active or all(plot.failed for plot in self.plots):
            return False
        clock = _Clock(self.spent)
        # A failed tree keeps its place, but there is nothing in it to fork, and nothing more it may hold.
        trees = [replace(plot.tree, nodes=[], forks=[], cap=0) if plot.failed else plot.tree for plot in self.plots]
        forest = replace(self.forest, trees=trees, left=self.pool)
        for fork in self.growth.branching.when_idle(forest, self.idle_rng):
            plot = self.plots[fork.tree]
            if plot.failed or (fork.node is not None and not self._may_fork(plot.tree, fork.node)):
                continue
            if not (granted := self._grant(fork.tree, fork.extra)):
                continue
            plot.tree.forks.append(replace(fork, extra=granted))
            with _Guard(self, fork.tree):
                self._reopen(fork.tree, replace(fork, extra=granted))
        clock.lap("environment")
        return bool(self.open)

    def _reopen(self, index: int, fork: Fork) -> None:
        """Open a granted fork from a state that has been passed already."""
        tree = self.plots[index].tree
        parent = -1 if fork.node is None else fork.node
        if fork.node is not None and fork.at == "decision":
            parent = tree.nodes[fork.node].parent
        self.open.append(_Open(index, parent, fork.extra, *self.states.reach(index, tree, parent), fork.exclude))

    def _actions(self, observation: Observation) -> tuple[str, ...]:
        return observation.shown if self.growth.prompt.list_actions else ()

    # -- a round ----------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        """Sample every open continuation, carry the actions out, and ask the strategy where to fork."""
        clock = _Clock(self.spent)
        items, self.open = self.open, []
        requests = [self._request(item) for item in items]
        clock.lap("prompt")
        answers = await ask(self.policy, requests)
        if taken := self._taken(items):
            await resample(self.policy, requests, answers, taken, self.spent, self.growth.prompt.parse)
        clock.lap("generate")
        grown: dict[int, list[_Branch]] = {}
        for item, request, answer in zip(items, requests, answers, strict=True):
            with _Guard(self, item.tree):
                grown.setdefault(item.tree, []).extend(self._steps(item, request, accepted(answer, item.state)))
        for index, branches in grown.items():
            plot = self.plots[index]
            if self.only_active:
                plot.ended += sum(not self._may_fork(plot.tree, branch.node) for branch in branches)
            # The budget is first come, first served: in a random order, so that no root is favoured.
            for branch in plot.rng.sample(branches, len(branches)):
                with _Guard(self, index):
                    if not plot.failed and self._may_fork(plot.tree, branch.node):
                        self._wish(index, branch)
                    else:
                        branch.state.close()
        self._close([item for item in self.open if self.plots[item.tree].failed])
        self.open = [item for item in self.open if not self.plots[item.tree].failed]
        clock.lap("environment")

    def _taken(self, items: Sequence[_Open]) -> dict[int, set[str]]:
        """Actions taken in the states of the continuations (by position) that exclude them; one set a state."""
        found: dict[tuple[int, int], set[str]] = {}
        for item in items:
            if item.exclude and (place := (item.tree, item.parent)) not in found:
                nodes = self.plots[item.tree].tree.nodes
                found[place] = {node.action for node in nodes if node.parent == item.parent}
        return {index: found[item.tree, item.parent] for index, item in enumerate(items) if item.exclude}

    def _request(self, item: _Open) -> Request:
        plot, sampling = self.plots[item.tree], self.growth.sampling
        tree = plot.tree
        rendered = self.growth.prompt.render(tree, item.parent, self.encoder)
        above = tree.nodes[item.parent].path if item.parent >= 0 else ()
        first = plot.born[item.parent]
        plot.born[item.parent] += item.count
        paths = [(*above, first + i) for i in range(item.count)]
        return Request(
            task=tree.task,
            messages=rendered.messages,
            observation=item.observation,
            seeds=tuple(derive(*plot.seed_name, path) for path in paths),
            prompt=rendered.ids,
            parent=(item.tree, *above),
            children=tuple((item.tree, *path) for path in paths),
            history=tuple(tree.nodes[i].action for i in tree.trajectory(item.parent)),
            truncated=rendered.truncated,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
        )

    def _steps(self, item: _Open, request: Request, answer: list[Completion]) -> list[_Branch]:
        """Carry out each sampled action in its own copy of the state."""
        cheap = item.state.fork_cost == "cheap"
        copies = item.count if cheap else item.count - 1
        states = [item.state.fork() for _ in range(copies)]
        self.spent.env_forks += item.count - 1
        if cheap:
            self.states.keep(item.tree, item.parent, item.state, item.observation)
        else:
            states.append(item.state)
        key = states[0].state_key()
        return [
            self._step(item, request, number, completion, key, state)
            for number, (completion, state) in enumerate(zip(answer, states, strict=True))
        ]

    def _step(
        self, item: _Open, request: Request, number: int, completion: Completion, key: str, state: Environment
    ) -> _Branch:
        plot = self.plots[item.tree]
        parsed = self.growth.prompt.parse(completion.text)
        observation = state.step(parsed.action)
        self.spent.env_steps += 1
        plot.tree.nodes.append(
            Node(
                parent=item.parent,
                path=request.children[number][1:],
                prompt=request.prompt or (),
                completion=completion.ids or (),
                logprobs=completion.logprobs or (),
                text=completion.text,
                mode=parsed.mode,
                reasoning=parsed.reasoning,
                action=parsed.action,
                well_formed=parsed.well_formed,
                admissible=observation.admissible,
                state_key=key,
                observation=observation.text,
                actions=self._actions(observation),
                reward=observation.reward,
                done=observation.done,
                success=observation.success,
                truncated=request.truncated,
                entropies=completion.entropies or (),
                progress=observation.progress,
            )
        )
        plot.born.insert(-1, 0)
        return _Branch(len(plot.tree.nodes) - 1, state, observation)


@dataclass
class _Guard:
    """Turns what an environment raises into one dropped, named, counted tree; wrong settings still stop the run."""

    grower: _Grower
    index: int

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if error is None or not isinstance(error, Exception) or isinstance(error, UsageError | MissingExtra | PromptTooLong):
            return False
        plot = self.grower.plots[self.index]
        if not plot.failed:
            plot.failed = f"{plot.tree.task.id}: {type(error).__name__}: {error}"
            self.grower.forest.failures.append(plot.failed)
            self.grower.spent.failed += 1
        return True


@dataclass
class _Clock:
    """Wall-clock seconds by phase."""

    spent: Spent
    last: float = field(default_factory=time.perf_counter)

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.spent.seconds[phase] = self.spent.seconds.get(phase, 0.0) + now - self.last
        self.last = now
