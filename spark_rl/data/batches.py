"""Batches of demonstrations: played in this process, or by helpers, one for each core.

Invariants
----------
* The demonstrations and their order depend on the batches alone: not on who plays them, how many helpers there are, or which
  is the fastest. An error is the one that this process would raise, at the same batch.
* When `played` ends, however it does, no helper is left.

Mechanism
---------
Helpers take a second or two to start. So the first batches are played here, and helpers start when the rest would take much
longer than that. A world whose environments live in other processes is always played here: its calls overlap already.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from spark_rl.branching.chains import Chains
from spark_rl.common.helpers import Helper, Lost, portable
from spark_rl.contracts import Demonstrates, Growth, OutOfProcess, World
from spark_rl.data.format import Demonstration, Origin
from spark_rl.errors import EnvironmentFailure
from spark_rl.policies.four_modes import in_modes
from spark_rl.policies.scripted import Slips
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Sampling, Task, TreeShape

__all__ = ["Batch", "Expert", "open_expert", "played"]

Batch = tuple[int, Sequence[Task]]
"""Number of the pass over the tasks, and the tasks, each played once."""
ENOUGH = 1.0
"""Seconds of playing in this process from which the rest is estimated."""
WORTH = 10.0
"""Seconds that the rest must take in this process for helpers to be worth their start."""


@dataclass(frozen=True)
class Expert:
    """A world's expert, and how it plays."""

    world: World
    origin: Origin
    """Is saved with the demonstrations."""
    horizon: int
    """Most steps of an episode."""
    prompt: Prompt
    seed: int
    tags: Literal["sparse", "dense"] = "sparse"
    """How often it explores."""
    slips: float = 0.0
    """Probability that a step is a slip."""

    async def won(self, batch: Batch) -> list[Demonstration]:
        """The episodes of a batch that were won, in the order of the tasks.

        Raises:
            EnvironmentFailure: the environment failed in every episode.
        """
        assert isinstance(self.world, Demonstrates)
        attempt, tasks = batch
        policy = Slips(self.world.expert(self.tags), self.slips)
        acting = in_modes(policy, self.prompt, self.world)
        growth = Growth(TreeShape(budget=1, roots=1, horizon=self.horizon), Chains(), self.prompt, Sampling(1.0))
        forest = await grow_forest(tasks, self.world, acting, growth, seed=self.seed, iteration=attempt)
        won: list[Demonstration] = []
        for tree in forest:
            if tree.nodes[-1].success:
                slipped = [(tree.task.id, node.path) in policy.slipped for node in tree.nodes]
                wrong = frozenset(i for i, slip in enumerate(slipped) if slip)
                won.append(Demonstration(tree, wrong, self.origin))
        return won


def open_expert(expert: Expert) -> Callable[[Batch], list[Demonstration]]:
    """The function that plays a batch in a helper."""
    return lambda batch: asyncio.run(expert.won(batch))


async def played(
    expert: Expert, batches: Iterator[Batch], missing: Callable[[], int], processes: int
) -> AsyncGenerator[list[Demonstration]]:
    """The won episodes of each batch, in the order of the batches, as long as the caller takes them.

    Args:
        expert: plays the batches.
        batches: are taken one by one, when they are played.
        missing: how many episodes the caller still needs. No more are played ahead of the caller than that.
        processes: most helpers; with fewer than 2 all batches are played here.

    Raises:
        EnvironmentFailure: the environment failed in every episode of a batch, or the helpers die.
    """
    begun, wanted = time.monotonic(), missing()
    for batch in batches:
        yield await expert.won(batch)
        spent, left = time.monotonic() - begun, missing()
        if processes > 1 and spent >= ENOUGH and spent * left >= WORTH * (wanted - left) and _spreads(expert):
            break
    else:
        return
    crew = _Crew(expert, processes)
    waiting: deque[tuple[int, asyncio.Future[list[Demonstration]]]] = deque()
    try:
        while True:
            while len(waiting) < 2 * processes and sum(size for size, _ in waiting) < missing():
                if (batch := next(batches, None)) is None:
                    break
                waiting.append((len(batch[1]), crew.begin(batch)))
            if not waiting:
                return
            yield await waiting.popleft()[1]
    finally:
        crew.stop()
        for _, future in waiting:
            _ = future.cancel() or future.exception()  # nobody waits for it any more


def _spreads(expert: Expert) -> bool:
    """Whether helpers can play, and play faster."""
    environment = expert.world.make()
    elsewhere = isinstance(environment, OutOfProcess) and environment.out_of_process
    environment.close()
    return not elsewhere and portable(expert)


class _Crew:
    """Helpers that play batches, each the next one when it is free."""

    def __init__(self, expert: Expert, processes: int) -> None:
        self._world = expert.world.name
        self._helpers = [Helper(open_expert, expert) for _ in range(processes)]
        self._free: queue.SimpleQueue[Helper] = queue.SimpleQueue()
        for helper in self._helpers:
            self._free.put(helper)
        self._threads = ThreadPoolExecutor(processes)

    def begin(self, batch: Batch) -> asyncio.Future[list[Demonstration]]:
        """Let the next free helper play a batch."""
        return asyncio.get_running_loop().run_in_executor(self._threads, self._play, batch)

    def stop(self) -> None:
        """End all helpers, also in the middle of a batch."""
        for helper in self._helpers:
            helper.close()
        self._threads.shutdown(cancel_futures=True)

    def _play(self, batch: Batch) -> list[Demonstration]:
        helper = self._free.get()
        try:
            return helper.insist(batch)
        except Lost as lost:
            raise EnvironmentFailure(
                f"{self._world}: the process that plays demonstrations {lost} at one of the tasks "
                f"{', '.join(task.id for task in batch[1])}, in a second process too; --processes 1 plays them in the "
                "process of the command"
            ) from lost
        finally:
            self._free.put(helper)
