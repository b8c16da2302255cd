"""The training loop: grow a forest, learn from it, hand the weights on, log. Blind to the algorithm, which is the recipe's.

Invariants
----------
* Calling `train` on a run does what is not done yet, so that resuming *is* calling it again. A resumed run gives the
  numbers of an uninterrupted one.
* Each iteration has one row in the log. The row is written before the checkpoint; rows after the checkpoint that a run is
  resumed from are forgotten and made again.
* Whoever grows trees has the learner's weights and knows their version.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spark_rl.common.running import run as run_loop
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Executor, ModelSource, Tracker, Watcher
from spark_rl.data.leaks import refuse_held_out
from spark_rl.errors import TrainingDiverged, UsageError
from spark_rl.evaluation.play import measure
from spark_rl.evaluation.results import LevelResult, development
from spark_rl.learning import dynamic_sampling, memory
from spark_rl.learning.learner import LocalLearner
from spark_rl.learning.prepare import prepare, set_threads
from spark_rl.rollout.executors.in_process import open_executor
from spark_rl.rollout.metrics import summarise
from spark_rl.runs import checkpoints
from spark_rl.runs.run import Run
from spark_rl.runs.trackers import trackers
from spark_rl.types import Task

__all__ = ["train"]


def train(run: Run, watcher: Watcher) -> None:
    """Bring a run to its end: cold start, evaluation, all iterations, evaluation.

    Raises:
        TrainingDiverged: training became unstable; the last good checkpoint is kept.
        SparkError: whatever a user can mend.
    """
    run_loop(_train(run, watcher))


async def _train(run: Run, watcher: Watcher) -> None:
    recipe = run.recipe
    with trackers(run) as copies:
        refuse_held_out(run, recipe.evaluation.levels, recipe.env)
        watcher.note(f"memory: {memory.check(recipe).total / 1e9:.1f} GB at most")
        set_threads(run, watcher)
        model, tokenizer = await prepare(run, watcher)
        learner = LocalLearner(run, model, tokenizer, watcher.note)
        source = ModelSource(loaded=(model, tokenizer))
        async with open_executor(recipe.engine, recipe.env, source) as executor:
            if executor.encoder is None:
                raise UsageError("the recipe's engine gives no token ids, so nothing can be learnt from it: --engine local")
            session = _Session(run, watcher, learner, executor, copies)
            await session.evaluate_levels("before")
            await session.iterate()
            await session.evaluate_levels("after")


@dataclass
class _Session:
    """What one call of `train` works with."""

    run: Run
    watcher: Watcher
    learner: LocalLearner
    executor: Executor
    copies: Sequence[Tracker]

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
            every = recipe.evaluation.every
            if every and (iteration % every == 0 or iteration == recipe.iterations):
                row |= await self._development()
            self.run.log(row)
            for copy in self.copies:
                copy.log(row)
            self._keep(iteration, row.get("dev_success"))
            self.watcher.iteration(row)

    async def _resume(self) -> int:
        """Load the newest checkpoint, if any, and hand its weights on; returns how many iterations are done."""
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
        row = {"iteration": float(iteration), **summarise(forest, recipe.tree.budget)}
        row |= self.learner.update(forest.trees, iteration)
        await self.executor.load_weights(self.learner.version, self.learner.weights())
        return row | {"seconds": time.perf_counter() - started}

    def _keep(self, iteration: int, success: float | None) -> None:
        """Write a checkpoint when one is due, at the end, and of the best on the development slice."""
        folder, keep = self.run.checkpoints, self.recipe.keep
        top = checkpoints.best(folder)
        leads = success is not None and (top is None or success > top[1])
        if leads or iteration % keep.every == 0 or iteration == self.recipe.iterations:
            self.learner.save(folder, iteration, success=success)
            checkpoints.prune(folder, keep.checkpoints)

    # -- evaluation -------------------------------------------------------------------------------------------------

    async def _evaluate(self, tasks: Sequence[Task], advance: Callable[[int], None] = lambda _: None) -> LevelResult:
        return await measure(self.executor, self.recipe, tasks, advance)

    async def _development(self) -> dict[str, float]:
        """The development slice: part of no test split, so that looking at it often costs nothing."""
        tasks = self.recipe.env.tasks(self.recipe.evaluation.dev_level, "dev")
        return development(await self._evaluate(tasks[: self.recipe.evaluation.dev_tasks or None]))

    async def evaluate_levels(self, moment: str) -> None:
        """Every test task of every level once; skipped when the run already holds the result."""
        if moment in self.run.evaluations():
            return
        results: dict[str, LevelResult] = {}
        for level in self.recipe.evaluation.levels:
            tasks = self.recipe.env.tasks(level, "test")
            self.watcher.phase(f"evaluate {level} {moment}", len(tasks))
            results[level] = await self._evaluate(tasks, self.watcher.advance)
        self.run.save_evaluation(moment, results)
