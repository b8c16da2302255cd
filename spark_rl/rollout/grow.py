"""Growing forests: the paper's algorithm 1, for every branching rule.

Invariants
----------
* Each tree has one task. A forest of T tasks never has more than T * budget leaves (`ledger`).
* One recipe and seed grow one forest, however fast the policy answers: every sample's seed and every rule's generator are
  derived from names, and trees that compete for leaves take them round by round, in the order of the trees.
* Rules that wait for outcomes plan over the whole forest (`when_idle`); then each tree is extended by its own forks.

`grow_forest` lets every tree grow as a coroutine of its own (`tree`). A policy that wants large batches is called in
rounds; otherwise each tree goes on as soon as it has its own answers (`asking`).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from spark_rl.common.ranks import ALONE, mine
from spark_rl.common.running import side_by_side
from spark_rl.common.seeding import derive
from spark_rl.contracts import Encoder, Growth, Policy, Ranks, Restarts, Watch, World
from spark_rl.errors import EnvironmentFailure
from spark_rl.policies.pace import in_rounds
from spark_rl.rollout.asking import Alone, Asking, Rounds
from spark_rl.rollout.clock import Clock
from spark_rl.rollout.grown import Known, Planned, may_fork, seedlings
from spark_rl.rollout.ledger import Ledger
from spark_rl.rollout.shares import dealing, exchanged, together
from spark_rl.rollout.tree import Grove, GrowingTree
from spark_rl.types import Forest, Spent, Task, Tree

__all__ = ["finished", "grow_forest", "grow_tree", "in_phases", "let_grow"]

Work = Callable[[GrowingTree, Asking, Callable[[], None]], Coroutine[Any, Any, None]]
"""The work of a tree in a phase. Arguments: the tree, its access to the policy, and a function to call after each round."""
Phase = Callable[[Planned | None], Awaitable[Sequence[Known]]]
"""Lets trees grow until none has an open continuation: from the roots (None), or by granted forks. Returns all trees of the
forest in their order; the ledger of the forest then counts the leaves of all."""


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
    version: int = 0,
    watch: Watch | None = None,
    ranks: Ranks = ALONE,
) -> Forest:
    """One tree for each task, each at its own pace.

    Args:
        tasks: one tree each; the same task twice gives two different trees.
        world: makes the environments.
        policy: proposes steps.
        growth: shape, branching, prompt and sampling.
        seed: the run's seed.
        iteration: the training iteration; each iteration draws other samples.
        encoder: turns messages into token ids; None for policies that read text.
        version: version of the weights that the policy samples from.
        watch: called after each round of all trees where the policy is called in rounds, otherwise of each tree.
        ranks: the processes that grow the forest together, each a share of the trees; each gets the whole forest.

    Returns:
        The forest, without the trees whose environment failed (they are named in `failures`).

    Raises:
        EnvironmentFailure: every tree failed.
        PromptTooLong: a task and its observation alone exceed the prompt limit.
    """
    spent = Spent()
    grove = Grove(world, growth, encoder, Ledger.of(growth.shape, len(tasks)), len(tasks), Clock(spent), spent)
    dealt = dealing(grove.ledger, growth.branching, ranks)
    sown = seedlings(tasks, seed, iteration, growth.shape)
    own = {one.index: GrowingTree(one, grove) for one in sown if mine(dealt(one.index), ranks)}
    forest = Forest([], iteration, seed, grove.spent, version=version)
    lost = world.lost if isinstance(world, Restarts) else int
    lost_before = lost()

    def tell() -> None:
        if watch:
            watch(_so_far(forest, [*own.values()]), sum(tree.pending for tree in own.values()))

    async def phase(planned: Planned | None) -> Sequence[Known]:
        growing = [*own.values()] if planned is None else [own[index] for index in planned if index in own]
        await let_grow(grove, policy, growing, planned, tell)
        return exchanged([*own.values()], grove.ledger, ranks)

    try:
        trees = await in_phases(forest, growth, grove.ledger, grove.clock, phase)
    finally:
        for tree in own.values():
            tree.close()
    grove.spent.restarts += lost() - lost_before
    forest.spent = together(ranks.gather(grove.spent)) if ranks.count > 1 else grove.spent
    return finished(forest, trees)


async def in_phases(forest: Forest, growth: Growth, ledger: Ledger, clock: Clock, phase: Phase) -> Sequence[Known]:
    """All trees of a forest when they have grown: from the roots, then by the forks that the rule plans over all trees.

    Args:
        forest: the forest that is to be grown, without trees.
        growth: shape and branching.
        ledger: the forest's budget; after a phase it counts the leaves of all trees.
        clock: planning counts as time of the environment.
        phase: lets the trees grow.
    """
    trees = await phase(None)
    rng = random.Random(derive(forest.seed, forest.iteration, "idle"))
    while planned := _plan(forest, trees, growth, ledger, clock, rng):
        trees = await phase(planned)
    return trees


async def let_grow(
    grove: Grove,
    policy: Policy,
    trees: Sequence[GrowingTree],
    planned: Planned | None,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Let trees of this process grow until no tree has an open continuation.

    Args:
        grove: what the trees share.
        policy: proposes steps.
        trees: those that grow in this phase.
        planned: their granted forks; None: from the roots.
        tell: called after each round.
    """
    work = GrowingTree.grow if planned is None else _extending(planned)
    if in_rounds(policy) or grove.ledger.shared(grove.growth.branching):
        rounds = Rounds(policy, grove.clock, [tree.index for tree in trees], tell)
        await side_by_side([*(work(tree, rounds, lambda: None) for tree in trees), rounds.serve()])
    else:
        alone = Alone(policy, grove.clock)
        await side_by_side([work(tree, alone, tell) for tree in trees])


def _extending(planned: Planned) -> Work:
    return lambda tree, asking, tell: tree.extend(planned[tree.index], asking, tell)


def _plan(
    forest: Forest, trees: Sequence[Known], growth: Growth, ledger: Ledger, clock: Clock, rng: random.Random
) -> Planned:
    """The forks that the rule wishes for when no leaf is open, and that the budget grants; empty when growth has ended."""
    if ledger.left <= 0 or ledger.counts_active or all(tree.failed for tree in trees):
        return {}
    # A failed tree keeps its place, but has no node to fork and may open no leaf.
    visible = [replace(one.tree, nodes=[], forks=[], cap=0) if one.failed else one.tree for one in trees]
    planned: Planned = {}
    with clock.phase("environment"):
        for rank, fork in enumerate(growth.branching.when_idle(replace(forest, trees=visible, left=ledger.left), rng)):
            one = trees[fork.tree]
            if one.failed or (fork.node is not None and not may_fork(one.tree, fork.node)):
                continue
            if granted := ledger.grant(one.index, one.tree, fork.extra):
                one.tree.forks.append(replace(fork, extra=granted))
                planned.setdefault(fork.tree, []).append((rank, one.tree.forks[-1]))
    return planned


def _so_far(forest: Forest, trees: Sequence[Known]) -> Forest:
    return replace(forest, trees=[one.tree for one in trees if not one.failed])


def finished(forest: Forest, trees: Sequence[Known]) -> Forest:
    """The forest without the trees that failed; the others are numbered anew."""
    failed = sorted((one for one in trees if one.failed), key=lambda one: (one.rounds, one.index))
    forest.failures = [one.failed for one in failed]
    forest.spent.failed += len(failed)
    if trees and len(failed) == len(trees):
        raise EnvironmentFailure(f"every tree failed; the first: {failed[0].failed}")
    finished = _so_far(forest, trees)
    for index, tree in enumerate(finished):
        tree.forks = [replace(fork, tree=index) for fork in tree.forks]
    return finished
