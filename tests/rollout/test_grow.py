"""Growing trees: budget, seeds, forks and failures, on a world small enough to check by hand."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from forking import check_forest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.branching.chains import Chains
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.branching.probability import Probability
from spark_rl.contracts import Growth
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest, grow_tree
from spark_rl.types import Completion, Forest, Fork, Observation, Request, Sampling, Task, Tree, TreeShape


@dataclass
class Corridor:
    """A number to count up: `more` adds one, at the task's goal it is won; forks are copies."""

    fork_cost: str = "cheap"
    fails: str = ""
    goal: int = 0
    count: int = 0
    seen: tuple[str, ...] = ()

    def _observe(self, *, admissible: bool = True) -> Observation:
        done = self.count >= self.goal
        return Observation(f"count {self.count}", ("more", "wait"), float(done), done, done, admissible)

    def reset(self, task: Task) -> Observation:
        if self.fails == "reset":
            raise RuntimeError("no such room")
        self.goal, self.count, self.seen = task.data["goal"], 0, ()
        return self._observe()

    def step(self, action: str) -> Observation:
        if self.fails == "step" and self.goal == 3:
            raise RuntimeError("the floor gave way")
        self.seen += (action,)
        self.count += action == "more"
        return self._observe(admissible=action in ("more", "wait"))

    def fork(self) -> Corridor:
        return replace(self)

    def state_key(self) -> str:
        return str(self.count)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class CorridorWorld:
    """Its tasks are goals."""

    fork_cost: str = "cheap"
    fails: str = ""
    name: str = "corridor"

    def tasks(self, level: str, split: str) -> Sequence[Task]:
        return [task(goal) for goal in range(1, 9)]

    def make(self) -> Corridor:
        return Corridor(self.fork_cost, self.fails)


def task(goal: int) -> Task:
    return Task("corridor", f"goal-{goal}", f"count to {goal}", data={"goal": goal})


@dataclass
class Dice:
    """Explores, waits or goes on as each sample's seed says; `explore` is the chance of an explore tag."""

    explore: float = 0.3
    wait: float = 0.3
    batches: list[int] = field(default_factory=list)
    prompts: list[Request] = field(default_factory=list)
    in_rounds: bool = False

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.batches.append(sum(request.n for request in requests))
        self.prompts += requests
        return [[self._answer(random.Random(seed)) for seed in request.seeds] for request in requests]

    def _answer(self, rng: random.Random) -> Completion:
        mode = "explore" if rng.random() < self.explore else "think"
        action = "wait" if rng.random() < self.wait else "more"
        return Completion(f"<{mode}>because</{mode}><action>{action}</action>")


def growth(branching: object = ExploreTag(), **shape: int) -> Growth:
    return Growth(TreeShape(**shape), branching, Prompt(instructions="none"), Sampling())  # type: ignore[arg-type]


def grow(goals: Sequence[int], plan: Growth, policy: Dice | None = None, world: object = None, seed: int = 0) -> Forest:
    return asyncio.run(
        grow_forest([task(goal) for goal in goals], world or CorridorWorld(), policy or Dice(), plan, seed=seed)  # type: ignore[arg-type]
    )


@settings(max_examples=1000, deadline=None)
@given(
    goals=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    roots=st.integers(1, 4),
    more=st.integers(0, 6),
    horizon=st.integers(1, 7),
    width=st.integers(2, 4),
    at=st.sampled_from(["after", "decision"]),
    explore=st.sampled_from([0.0, 0.3, 1.0]),
    fork_cost=st.sampled_from(["cheap", "replay"]),
    seed=st.integers(0, 99),
)
def test_every_forest_keeps_the_rules(goals, roots, more, horizon, width, at, explore, fork_cost, seed):
    plan = growth(ExploreTag(width, at), roots=roots, budget=roots + more, horizon=horizon)
    check_forest(grow(goals, plan, Dice(explore), CorridorWorld(fork_cost), seed), plan.shape)


@pytest.mark.parametrize("fork_cost", ["cheap", "replay"])
def test_states_follow_their_own_path(fork_cost):
    forest = grow([4, 5], growth(ExploreTag(3, "decision"), roots=2, budget=8, horizon=6), world=CorridorWorld(fork_cost))
    for tree in forest:
        for node in range(len(tree.nodes)):
            taken = [tree.nodes[i].action for i in tree.trajectory(node)]
            assert tree.nodes[node].observation == f"count {taken.count('more')}"
            assert tree.nodes[node].state_key == str(taken[:-1].count("more"))


def test_a_replaying_world_grows_the_same_forest():
    plan = growth(ExploreTag(2, "decision"), roots=2, budget=6, horizon=6)
    copied, replayed = (grow([3, 4], plan, world=CorridorWorld(cost)) for cost in ("cheap", "replay"))
    assert copied.trees == replayed.trees
    assert replayed.spent.replayed > copied.spent.replayed == 0


def test_same_seed_same_forest_and_neighbours_do_not_matter():
    plan = growth(roots=2, budget=5, horizon=6)
    assert grow([3, 4, 5], plan, seed=7) == grow([3, 4, 5], plan, seed=7)
    assert grow([3, 4, 5], plan, seed=7) != grow([3, 4, 5], plan, seed=8)
    alone = grow([4], plan, seed=7).trees[0]
    beside = grow([3, 4, 5], plan, seed=7).trees[1]
    assert alone.nodes == beside.nodes


def test_one_task_twice_gives_two_trees():
    first, second = grow([5, 5], growth(roots=2, budget=2, horizon=9)).trees
    assert first.nodes != second.nodes


def test_always_exploring_spends_the_budget_at_depth_one():
    """Pitfall M6: four roots become eight leaves at once."""
    tree = grow([9], growth(roots=4, budget=8, horizon=5), Dice(explore=1.0)).trees[0]
    assert [tree.nodes[fork.node].depth for fork in tree.forks if fork.node is not None] == [1, 1, 1, 1]
    assert len(tree.leaves()) == 8


@pytest.mark.parametrize(("width", "roots", "granted"), [(2, 4, [1, 1, 1, 1]), (4, 6, [2]), (4, 4, [3, 1]), (2, 8, [])])
def test_grants_follow_equation_seven(width, roots, granted):
    """Pitfall M1: a fork gets at most what is left of N = 8."""
    tree = grow([9], growth(ExploreTag(width), roots=roots, budget=8, horizon=3), Dice(explore=1.0)).trees[0]
    assert [fork.extra for fork in tree.forks] == granted


def test_no_fork_where_nothing_can_follow():
    """Pitfall P13: finished at the first step, or at the horizon."""
    finished = grow([1], growth(roots=3, budget=8, horizon=9), Dice(explore=1.0, wait=0.0))
    at_horizon = grow([9], growth(roots=3, budget=8, horizon=1), Dice(explore=1.0))
    assert [len(forest.trees[0].leaves()) for forest in (finished, at_horizon)] == [3, 3]


def test_finished_trajectories_are_not_asked_again():
    policy = Dice(explore=0.0, wait=0.0, in_rounds=True)
    grow([1, 2, 4], growth(Chains(), roots=2, budget=2, horizon=9), policy)
    assert policy.batches == [6, 4, 2, 2]


def test_roots_share_one_request_and_siblings_theirs():
    policy = Dice(explore=1.0, wait=0.0)
    grow([3], growth(ExploreTag(2), roots=2, budget=4, horizon=3), policy)
    assert [request.n for request in policy.prompts[:3]] == [2, 2, 2]
    addresses = [address for request in policy.prompts for address in request.children]
    assert len(set(addresses)) == len(addresses)


@dataclass(frozen=True)
class NewRoots:
    """Spends what is left on new roots, once everything has ended; then on decisions of the first step."""

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        return None

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        shortest = min(forest.trees, key=lambda tree: len(tree.nodes))
        index = forest.trees.index(shortest)
        if shortest.opened < 4:
            return [Fork(index, None, "decision", 1)]
        return [Fork(index, 0, "decision", 9), Fork(index, 0, "after", 9)]


def test_idle_forks_may_move_leaves_between_tasks_up_to_the_cap():
    plan = growth(NewRoots(), roots=2, budget=5, horizon=9, cap=7)
    forest = grow([2, 6], plan)
    check_forest(forest, plan.shape)
    assert [tree.opened for tree in forest] == [7, 3] or [tree.opened for tree in forest] == [7, 2]


@pytest.mark.parametrize("rule", [ExploreTag(), NewRoots()])
def test_leaves_move_within_pools_alone(rule):
    """Two tasks with a pool of their own grow as if the other two were not there."""
    shape = {"roots": 2, "budget": 4, "horizon": 9, "cap": 6}
    together = grow([3, 4, 5, 6], growth(rule, **shape, pool=2), Dice(explore=0.3))
    apart = [grow(goals, growth(rule, **shape), Dice(explore=0.3)) for goals in ([3, 4], [5, 6])]
    if isinstance(rule, ExploreTag):
        assert [tree.nodes for tree in together] == [tree.nodes for forest in apart for tree in forest]
    opened = [tree.opened for tree in together]
    assert max(opened) > 4, "leaves have moved"
    assert max(sum(opened[:2]), sum(opened[2:])) <= 8


@dataclass(frozen=True)
class Onlooker(Chains):
    """Wishes for a root more in every tree, and remembers what it was shown."""

    shown: list[tuple[int, list[tuple[int, int, int]]]] = field(default_factory=list)

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        self.shown.append((forest.left, [(len(tree.leaves()), tree.opened, tree.cap) for tree in forest]))
        return [Fork(index, None, "decision", 1) for index in range(len(forest))]


def test_what_is_left_is_shown_to_those_who_wait():
    rule = Onlooker()
    forest = grow([2, 6], growth(rule, roots=2, budget=5, horizon=9, cap=6))
    assert rule.shown[0] == (6, [(2, 2, 6), (2, 2, 6)])
    assert rule.shown[1:] == [(4, [(3, 3, 6)] * 2), (2, [(4, 4, 6)] * 2)]
    assert [(tree.opened, tree.cap, tree.horizon) for tree in forest] == [(5, 6, 9)] * 2


def test_a_tree_that_failed_is_shown_empty_and_gets_nothing():
    rule = Onlooker()
    forest = grow([2, 3], growth(rule, roots=1, budget=2, horizon=4), world=CorridorWorld(fails="step"))
    assert rule.shown == [(2, [(1, 1, 2), (0, 1, 0)]), (1, [(2, 2, 2), (0, 1, 0)])]
    assert [tree.opened for tree in forest] == [2]


@pytest.mark.parametrize("at", ["after", "decision"])
def test_siblings_of_a_fork_that_excludes_take_other_actions(at):
    @dataclass(frozen=True)
    class Once(Chains):
        """Forks the second step of the first root, once."""

        def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
            first = tree.nodes[node].path == (0, 0) and not tree.forks
            return Fork(index, node, at, 1, exclude=True) if first else None

    pairs: list[list[str]] = []
    for seed in range(12):
        tree = grow([9], growth(Once(), roots=1, budget=2, horizon=5), Dice(wait=0.5), seed=seed).trees[0]
        forked = 2 if at == "after" else 1
        pairs.append([node.action for node in tree.nodes if node.depth == forked + 1])
    # Two actions, four draws more: a repeat stays in one case of 32 at most.
    assert sum(set(pair) == {"more", "wait"} for pair in pairs) >= 11


def test_resets_are_time_of_the_environment(monkeypatch):
    reset = Corridor.reset

    def slowly(self: Corridor, task: Task) -> Observation:
        time.sleep(0.02)  # at least
        return reset(self, task)

    monkeypatch.setattr(Corridor, "reset", slowly)
    assert grow([2, 3], growth(budget=2, roots=2)).spent.seconds["environment"] >= 0.04


@pytest.mark.parametrize("fails", ["reset", "step"])
def test_a_failing_environment_costs_its_tree_and_is_told(fails):
    world = CorridorWorld(fails=fails)
    if fails == "reset":
        with pytest.raises(EnvironmentFailure, match=r"every tree failed; the first: goal-2: RuntimeError: no such room"):
            grow([2, 3], growth(roots=1, budget=2, horizon=4), world=world)
    else:
        forest = grow([2, 3], growth(roots=1, budget=2, horizon=4), world=world)
        assert [tree.task.id for tree in forest] == ["goal-2"]
        assert forest.failures == ["goal-3: RuntimeError: the floor gave way"]
        assert forest.spent.failed == 1


def test_a_world_that_is_not_deterministic_is_found_out():
    @dataclass
    class Drifting(Corridor):
        def reset(self, task: Task) -> Observation:
            first = super().reset(task)
            self.count = random.randrange(10**9) * -1
            return first

        def fork(self) -> Drifting:
            return replace(self)

    @dataclass(frozen=True)
    class Drift(CorridorWorld):
        def make(self) -> Corridor:
            return Drifting("replay")

    with pytest.raises(EnvironmentFailure, match="ReplayMismatch"):
        grow([9], growth(ExploreTag(2, "decision"), roots=1, budget=4, horizon=4), Dice(explore=1.0), Drift())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"roots": 9, "budget": 8}, "tree.roots is 9, more than tree.budget 8"),
        ({"horizon": 0}, "tree.horizon is 0"),
        ({"roots": 4, "cap": 3}, "tree.cap is 3, less than tree.roots 4"),
    ],
)
def test_impossible_shapes_are_refused(shape, message):
    with pytest.raises(UsageError, match=message):
        TreeShape(**shape)


@pytest.mark.parametrize("width", [1, 0])
def test_a_fork_needs_two_continuations(width):
    for make in (ExploreTag, lambda width: Probability(width=width)):
        with pytest.raises(UsageError, match="at least 2 continuations"):
            make(width)


def test_grow_tree_is_a_forest_of_one():
    plan = growth(roots=2, budget=4, horizon=5)
    tree = asyncio.run(grow_tree(task(3), CorridorWorld(), Dice(), plan, seed=1))  # type: ignore[arg-type]
    assert tree == grow([3], plan, seed=1).trees[0]


def test_an_interruption_gets_through_although_the_policy_never_waits():
    class Interrupted:
        asked = 0

        async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
            self.asked += 1
            if self.asked == 2:
                running = asyncio.current_task()
                assert running is not None
                running.cancel()  # what asyncio.run makes of Ctrl-C
            return [[Completion("<think>Not yet.</think><action>wait</action>")] * request.n for request in requests]

    policy = Interrupted()
    growth = Growth(TreeShape(budget=1, roots=1, horizon=9), Chains(), Prompt(), Sampling())
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(grow_forest([task(5)], CorridorWorld(), policy, growth, seed=0))  # type: ignore[arg-type]
    assert policy.asked == 2
