"""The training loop: grow a forest, update the policy, pass the weights on, log. The recipe defines the algorithm.

Invariants
----------
* `train` does the unfinished work of a run, so a run is resumed by calling `train` again. A resumed run gives the same
  numbers as an uninterrupted one.
* Each iteration has one row in the log. The row is written before the checkpoint. When a run resumes from a checkpoint, the
  later rows are deleted and their iterations are repeated.
* The executor always has the learner's weights and their version.
* Several ranks run the same loop on the same numbers. The first one writes; the others read and follow.
* The loop uses nothing of a learner beyond `contracts.Learner`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from spark_rl.common.ranks import ALONE
from spark_rl.common.running import run as run_loop
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Executor, LanguageModel, Learner, ModelSource, Preloads, Ranks, Tokenizer, Tracker, Watcher
from spark_rl.data.leaks import refuse_held_out
from spark_rl.engines.openai import Endpoint
from spark_rl.errors import TrainingDiverged, UsageError
from spark_rl.evaluation.play import measure
from spark_rl.evaluation.results import LevelResult, development
from spark_rl.learning import dynamic_sampling, memory
from spark_rl.learning.forecast import forecast
from spark_rl.learning.learner import LocalLearner
from spark_rl.learning.prepare import prepare, set_threads
from spark_rl.models.load import device_of
from spark_rl.models.precision import bfloat16_price, warning
from spark_rl.rollout.executors.in_process import open_executor, require_ids
from spark_rl.rollout.metrics import summarise
from spark_rl.rollout.tasks import choose_tasks, preload
from spark_rl.runs import checkpoints
from spark_rl.runs.run import Follower, Run
from spark_rl.runs.trackers import trackers
from spark_rl.types import Task

__all__ = ["MakeLearner", "OpenExecutor", "in_process", "train"]

MakeLearner = Callable[[Run, LanguageModel, Tokenizer, Callable[[str], None], Ranks], Learner]
"""Makes a learner from a run, its cold-started model, the model's tokenizer, a function that receives notes, and the ranks
that are the learner together."""

OpenExecutor = Callable[[Recipe, ModelSource, Callable[[str], None], Ranks], AbstractAsyncContextManager[Executor]]
"""Opens what grows the trees, from a recipe, the cold-started model (in memory and as a folder), a function that receives
notes, and the ranks."""


@asynccontextmanager
async def in_process(
    recipe: Recipe, source: ModelSource, tell: Callable[[str], None], ranks: Ranks
) -> AsyncGenerator[Executor]:
    """Trees grow in the process that learns, from the learner's own model."""
    async with open_executor(recipe.engine, recipe.env, source, ranks=ranks) as executor:
        require_ids(executor.encoder)
        yield executor


def train(
    run: Run,
    watcher: Watcher,
    make_learner: MakeLearner = LocalLearner,
    ranks: Ranks = ALONE,
    growing: OpenExecutor = in_process,
) -> None:
    """Bring a run to its end: cold start, evaluation, all iterations, evaluation.

    Args:
        run: the run, new or interrupted.
        watcher: receives reports of progress.
        make_learner: makes the learner; by default one that trains in this process.
        ranks: the processes that train together; each of them calls this function. The first alone writes.
        growing: opens what grows the trees; by default this process.

    Raises:
        TrainingDiverged: training became unstable; the last good checkpoint stays.
        SparkError: another error that the user can correct.
    """
    run_loop(_train(Follower.of(run) if ranks.rank else run, watcher, make_learner, ranks, growing))


async def _train(run: Run, watcher: Watcher, make_learner: MakeLearner, ranks: Ranks, growing: OpenExecutor) -> None:
    recipe = run.recipe
    _check(recipe, ranks)
    with nullcontext(()) if ranks.rank else trackers(run) as copies:
        refuse_held_out(run, recipe.evaluation.levels, recipe.env)
        shape = memory.shape(recipe)
        placed = memory.fitted(recipe, shape)
        watcher.note(f"memory: {memory.check(placed, shape).total / 1e9:.1f} GB at most")
        if placed != recipe:
            watcher.note(f"engine: {placed.engine.memory() / 1e9:.1f} GB for keys and values, which the learner leaves")
        set_threads(run, watcher, ranks)
        if shape.bytes == 2 and device_of(recipe.weights.device) == "cpu" and (slow := warning(bfloat16_price())):
            watcher.note(slow)
        if not ranks.rank:
            await _expect(recipe, watcher)
        if recipe.scale.executor == "process":  # workers play the tasks otherwise
            preload(recipe.env, _first_tasks(run)[ranks.rank :: ranks.count])
        model, tokenizer = await prepare(run, watcher, ranks)
        learner = make_learner(run, model, tokenizer, watcher.note, ranks)
        source = ModelSource(
            name=run.checkpoints / "cold-start",
            device=recipe.weights.device,
            dtype=recipe.weights.dtype,
            loaded=(model, tokenizer),
        )
        async with growing(placed, source, watcher.note, ranks) as executor:
            session = _Session(run, watcher, learner, executor, copies, writes=not ranks.rank)
            await session.evaluate_levels("before")
            await session.iterate()
            await session.evaluate_levels("after")


def _check(recipe: Recipe, ranks: Ranks) -> None:
    """Refuse ranks and workers that would have nothing to do, or would disagree.

    Raises:
        UsageError: there are more of them than tasks, or the engine is a server.
    """
    on_workers = recipe.scale.executor == "ray"
    for name, count in (("ranks", ranks.count), ("workers", recipe.scale.workers if on_workers else 1)):
        if count > recipe.tasks_per_iteration:
            raise UsageError(
                f"scale.{name} is {count}, more than the {recipe.tasks_per_iteration} tasks of an iteration: lower it, or "
                "raise --tasks-per-iteration"
            )
    if isinstance(recipe.engine, Endpoint) and (ranks.count > 1 or on_workers):
        raise UsageError(
            "one server cannot take weights from several processes: --engine vllm gives each process an engine of its own, "
            "or set --scale.ranks 1 and --scale.executor process"
        )


async def _expect(recipe: Recipe, watcher: Watcher) -> None:
    """Tell the watcher how long the run should take. A model from scratch takes minutes, so nothing is measured for it."""
    if isinstance(recipe.model, str) and (expected := await forecast(recipe)) is not None:
        watcher.note(f"time: {expected.sentence()}")
        watcher.expect(expected.phases)


@dataclass
class _Session:
    """The parts of one call of `train`."""

    run: Run
    watcher: Watcher
    learner: Learner
    executor: Executor
    copies: Sequence[Tracker]
    writes: bool
    """Whether this process deletes what a checkpoint replaces."""

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    # -- the loop ---------------------------------------------------------------------------------------------------

    async def iterate(self) -> None:
        recipe, done = self.recipe, await self._resume()
        tasks = recipe.env.tasks(recipe.level, "train")
        self.watcher.phase("train", recipe.iterations, done)
        for iteration in range(done + 1, recipe.iterations + 1):
            try:
                row = await self._iteration(iteration, tasks)
            except TrainingDiverged as error:
                raise TrainingDiverged(
                    f"iteration {iteration}: {error} (optimizer.learning_rate in {self.run.directory}/recipe.json), then go "
                    f"on from the last good checkpoint with --resume {self.run.directory}"
                ) from error
            if self._is_developed(iteration):
                row |= await self._development()
            self.run.log(row)
            for copy in self.copies:
                copy.log(row)
            self._save(iteration, row.get("dev_success"))
            self.watcher.iteration(row)

    async def _resume(self) -> int:
        """Load the newest checkpoint, if any, and pass its weights on; returns the number of finished iterations."""
        path = checkpoints.latest(self.run.checkpoints)
        done = self.learner.load(path)
        if path is not None:
            await self.executor.load_weights(self.learner.version, self.learner.weights())
            self.watcher.note(f"continuing after iteration {done}")
        self.run.rewind(done)
        return done

    async def _iteration(self, iteration: int, tasks: Sequence[Task]) -> dict[str, float]:
        recipe, started = self.recipe, time.perf_counter()
        forest = await dynamic_sampling.grow(self.executor, tasks, recipe, iteration, self.learner.has_signal)
        self.run.save_forest(forest)
        preload(self.executor, self._coming(iteration, tasks))
        row = {"iteration": float(iteration), **summarise(forest, recipe.tree.budget)}
        row |= self.learner.update(forest.trees, iteration)
        await self.executor.load_weights(self.learner.version, self.learner.weights())
        return row | {"seconds": time.perf_counter() - started}

    def _coming(self, iteration: int, tasks: Sequence[Task]) -> list[Task]:
        """The tasks that are played after the update of an iteration; none where the world does not want to know."""
        recipe = self.recipe
        if not isinstance(recipe.env, Preloads):
            return []
        coming = list(self._development_tasks()) if self._is_developed(iteration) else []
        if iteration == recipe.iterations:
            return coming + _test_tasks(recipe)
        return coming + choose_tasks(tasks, recipe.tasks_per_iteration, seed=recipe.seed, iteration=iteration + 1)

    def _save(self, iteration: int, success: float | None) -> None:
        """Write a checkpoint when one is due, after the last iteration, and for a new best on the development slice."""
        folder, keep = self.run.checkpoints, self.recipe.keep
        top = checkpoints.best(folder)
        leads = success is not None and (top is None or success > top[1])
        if leads or iteration % keep.every == 0 or iteration == self.recipe.iterations:
            self.learner.save(folder, iteration, success=success)
            if self.writes:
                checkpoints.prune(folder, keep.checkpoints)

    # -- evaluation -------------------------------------------------------------------------------------------------

    async def _evaluate(self, tasks: Sequence[Task], advance: Callable[[int], None] = lambda _: None) -> LevelResult:
        return await measure(self.executor, self.recipe, tasks, advance)

    async def _development(self) -> dict[str, float]:
        """Metrics on the development slice. It shares no task with a test split, so it may be evaluated often."""
        return development(await self._evaluate(self._development_tasks()))

    def _development_tasks(self) -> Sequence[Task]:
        settings = self.recipe.evaluation
        return self.recipe.env.tasks(settings.dev_level, "dev")[: settings.dev_tasks or None]

    def _is_developed(self, iteration: int) -> bool:
        """Whether the development slice is evaluated after an iteration."""
        every = self.recipe.evaluation.every
        return bool(every) and (iteration % every == 0 or iteration == self.recipe.iterations)

    async def evaluate_levels(self, moment: str) -> None:
        """Evaluate every test task of every level once; does nothing if the run already has the result."""
        if moment in self.run.evaluations():
            return
        results: dict[str, LevelResult] = {}
        for level in self.recipe.evaluation.levels:
            tasks = self.recipe.env.tasks(level, "test")
            self.watcher.phase(f"evaluate {level} {moment}", len(tasks))
            results[level] = await self._evaluate(tasks, self.watcher.advance)
        self.run.save_evaluation(moment, results)


def _first_tasks(run: Run) -> list[Task]:
    """The tasks that a new run plays first: those of the first evaluation, then those of the first iteration."""
    recipe = run.recipe
    if run.evaluations() or not isinstance(recipe.env, Preloads):
        return []
    first = choose_tasks(recipe.env.tasks(recipe.level, "train"), recipe.tasks_per_iteration, seed=recipe.seed, iteration=1)
    return [*_test_tasks(recipe), *(first if recipe.iterations else [])]


def _test_tasks(recipe: Recipe) -> list[Task]:
    """The test tasks of all levels, each once."""
    return list({task.id: task for level in recipe.evaluation.levels for task in recipe.env.tasks(level, "test")}.values())
