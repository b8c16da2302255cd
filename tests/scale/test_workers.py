"""Forests that workers grow are those of one process, whoever grows what, and whoever is lost.

The workers live in this process; what they are sent goes through pickle, as it does between processes.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import tiny

from spark_rl.branching.probability import Probability
from spark_rl.contracts import ModelState
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.errors import PolicyFailure, SparkError
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.recipes.algorithms import ALGORITHMS
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.rollout.grown import seedlings
from spark_rl.rollout.parts import Grower, Harvest, Part
from spark_rl.scale.dispatch import ATTEMPTS, Dispatch, Unit, WorkerLost
from spark_rl.scale.on_workers import OnWorkers
from spark_rl.types import Forest, Spent, Task

TASKS = 5


def recipe(name: str) -> Any:
    base = replace(tiny.RECIPE, tasks_per_iteration=TASKS)
    if name == "pools":
        return replace(base, branching=Probability(0.1), tree=replace(base.tree, cap=6, pool=2))
    return ALGORITHMS[name](base)


@cache
def start() -> tuple[Any, Any]:
    folder = tiny.finished()[0].checkpoints / "cold-start"
    return load_model(folder), load_tokenizer(folder)


def engine() -> LocalEngine:
    model, tokenizer = start()
    return LocalEngine(copy.deepcopy(model), tokenizer, cache_bytes=10**8)


class Here:
    """A crew in this process, whose workers may be lost in the middle of a part."""

    def __init__(self, count: int, *, losing: int = 0) -> None:
        """Of so many parts, the last is lost with its worker; 0: none."""
        self.count, self.lost, self._losing, self._ended = count, 0, losing, 0
        self.growers = [self._new() for _ in range(count)]
        self.grew: list[tuple[int, tuple[int, ...]]] = []

    def _new(self) -> Grower:
        return Grower(pickle.loads(pickle.dumps(tiny.WORLD)), engine())

    def put(self, weights: ModelState) -> object:
        return {name: value.clone() for name, value in weights.items()}

    async def grow(self, worker: int, part: Part, weights: Any) -> Harvest:
        async def given() -> ModelState:
            assert weights is not None
            return weights

        self.grew.append((worker, tuple(one.index for one in part.trees)))
        harvest = await self.growers[worker].grow(pickle.loads(pickle.dumps(part)), given)
        self._ended += 1
        if self._losing and self._ended % self._losing == 0:
            self.lost += 1
            self.growers[worker] = self._new()
            raise WorkerLost("killed")
        return pickle.loads(pickle.dumps(harvest))

    async def finish(self, forest: int) -> None:
        for grower in self.growers:
            await grower.finish(forest)

    def preload(self, worker: int, tasks: Sequence[Task]) -> None:
        raise AssertionError("this world has nothing to preload")


def grown(executor: Any, settings: Any) -> Forest:
    tasks = settings.env.tasks("L0", "train")[:TASKS]
    return asyncio.run(executor.grow(tasks, settings.growth, seed=5, iteration=1))


COUNTED = ("generated", "discarded", "env_steps", "failed", "trained")
"""Costs that do not depend on how trees share caches and states."""


def costs(forest: Forest) -> dict[str, int]:
    return {name: getattr(forest.spent, name) for name in COUNTED}


def same(one: Forest, other: Forest) -> None:
    """The same trees; log-probabilities may differ by rounding, since batches differ."""
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.task == theirs.task
        assert mine.forks == theirs.forks
        assert mine.opened == theirs.opened
        for x, y in zip(mine.nodes, theirs.nodes, strict=True):
            assert replace(x, logprobs=(), entropies=()) == replace(y, logprobs=(), entropies=())
            assert list(x.logprobs) == pytest.approx(list(y.logprobs), abs=1e-4)


@pytest.mark.parametrize("name", ["paper", "strategic", "strategic_chains", "hybrid", "pools"])
@pytest.mark.parametrize("losing", [0, 3])
def test_workers_grow_the_forest_of_one_process(name, losing):
    settings = recipe(name)
    whole = grown(InProcess(settings.env, engine()), settings)
    crew = Here(2, losing=losing)
    forest = grown(OnWorkers(crew, slots=2), settings)
    same(whole, forest)
    assert forest.spent.restarts == crew.lost
    assert bool(crew.lost) == bool(losing)
    assert costs(forest) == costs(whole), "what was lost is not counted"


def test_a_tree_goes_on_elsewhere_from_its_record():
    """Each phase on another worker, so that no state is at hand."""
    settings = recipe("strategic")
    whole = grown(InProcess(settings.env, engine()), settings)

    class Wandering(Here):
        turn = 0

        async def grow(self, worker: int, part: Part, weights: Any) -> Harvest:
            self.turn += 1
            return await super().grow((worker + self.turn) % 2, part, weights)

    forest = grown(OnWorkers(Wandering(2)), settings)
    same(whole, forest)
    assert forest.spent.replayed > whole.spent.replayed
    assert forest.spent.env_steps == whole.spent.env_steps


def test_trees_stay_where_their_states_are():
    crew = Here(2)
    grown(OnWorkers(crew), recipe("hybrid"))
    homes = {}
    for worker, trees in crew.grew:
        for tree in trees:
            assert homes.setdefault(tree, worker) == worker
    assert len(crew.grew) > TASKS, "several phases"


def test_workers_take_the_weights_that_a_request_names():
    settings = recipe("paper")
    trained = load_model(tiny.finished()[0].checkpoints / "000004")
    one = InProcess(settings.env, engine())
    asyncio.run(one.load_weights(4, trained.state_dict()))
    crew = Here(2, losing=3)
    several = OnWorkers(crew)
    first = grown(several, settings)
    asyncio.run(several.load_weights(4, trained.state_dict()))
    forest = grown(several, settings)
    same(grown(one, settings), forest)
    assert {node.version for tree in forest for node in tree.nodes} == {4}
    assert {node.version for tree in first for node in tree.nodes} == {0}


def test_a_worker_refuses_to_grow_with_other_weights():
    class Stubborn(LocalEngine):
        async def load_weights(self, version: int, weights: ModelState) -> None:
            """Keep what is there."""

    grower = Grower(tiny.WORLD, Stubborn(*start()))
    settings = recipe("paper")
    trees = seedlings(settings.env.tasks("L0", "train")[:1], 5, 1, settings.tree)

    async def weights() -> ModelState:
        return {}

    with pytest.raises(PolicyFailure, match="weights of version 0, not of 3"):
        asyncio.run(grower.grow(Part(1, 3, settings.growth, 1, trees, None), weights))


# -- who gets what ------------------------------------------------------------------------------------------------------


def units(*work: float) -> list[Unit]:
    settings = recipe("paper")
    trees = seedlings(settings.env.tasks("L0", "train")[: len(work)], 5, 1, settings.tree)
    return [Unit([one], load) for one, load in zip(trees, work, strict=True)]


def dealt(dispatch: Dispatch, given: Sequence[Unit]) -> list[Harvest]:
    return asyncio.run(dispatch.run(given))


def test_the_longest_come_first_and_the_load_is_even():
    begun: list[tuple[int, float]] = []

    async def send(worker: int, unit: Unit) -> Harvest:
        begun.append((worker, unit.work))
        await asyncio.sleep(0)
        return Harvest([*unit.trees], Spent())

    dealt(Dispatch(2, 0, send), units(1, 9, 5, 4))
    assert begun == [(0, 9), (0, 1), (1, 5), (1, 4)], "9 + 1 against 5 + 4"


def test_an_idle_worker_takes_what_waits_for_another():
    grew: list[tuple[int, float]] = []
    free = asyncio.Event()

    async def send(worker: int, unit: Unit) -> Harvest:
        grew.append((worker, unit.work))
        await (free.wait() if worker == 0 else asyncio.sleep(0))
        return Harvest([*unit.trees], Spent())

    async def run() -> tuple[Dispatch, list[Harvest]]:
        dispatch = Dispatch(2, 1, send, homes=dict.fromkeys(range(4), 0))
        working = asyncio.ensure_future(dispatch.run(units(4, 3, 2, 1)))
        while len(grew) < 4:  # the first worker is stuck with its longest; the other takes all that waits
            await asyncio.sleep(0)
        free.set()
        return dispatch, await working

    dispatch, harvests = asyncio.run(run())
    assert grew == [(0, 4), (1, 3), (1, 2), (1, 1)]
    assert dispatch.stolen == 3
    assert len(harvests) == 4
    assert dispatch.homes == {0: 0, 1: 1, 2: 1, 3: 1}


def test_a_unit_that_loses_worker_after_worker_stops_the_run():
    tries: list[int] = []

    async def send(worker: int, unit: Unit) -> Harvest:
        tries.append(worker)
        raise WorkerLost("signal 9")

    with pytest.raises(SparkError, match=f"{ATTEMPTS} workers were lost, one after the other, while they grew .*signal 9"):
        dealt(Dispatch(1, 0, send), units(1))
    assert len(tries) == ATTEMPTS
