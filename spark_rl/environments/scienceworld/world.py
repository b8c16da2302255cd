"""The `ScienceWorld` world: its tasks, its settings and its expert.

Invariants
----------
* A task is a type and a variation: all trajectories of a tree, and all forks, play this variation.
* A rule (`catalogue`) decides which tasks a level has. A task's instruction is the engine's sentence, from a Java process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spark_rl.contracts import Policy
from spark_rl.environments.scienceworld.catalogue import VARIATIONS, named, variations
from spark_rl.environments.scienceworld.engine import Engines
from spark_rl.environments.scienceworld.environment import Rules, ScienceWorldEnvironment
from spark_rl.environments.scienceworld.gold import GoldPaths, Solutions
from spark_rl.environments.scienceworld.jvm import Launch, engine_version
from spark_rl.errors import UsageError, unknown_name
from spark_rl.types import Task

__all__ = ["ScienceWorld"]

_SIMPLIFICATIONS = (
    "easy",
    "teleportAction",
    "selfWateringFlowerPots",
    "openContainers",
    "openDoors",
    "noElectricalAction",
)


@dataclass(frozen=True)
class ScienceWorld:
    """Experiments of primary-school science: 30 types of task, 7,207 variations.

    L0 is tested on variations near those of training, L1 on others, L2 on ten types that it does not train on.
    """

    kinds: tuple[str, ...] = ()
    """Types of task to use, in every level and split; empty means all."""
    train_tasks: int = 0
    """Number of training tasks, a fixed choice mixed over the types; 0 means all."""
    dev_tasks: int = 50
    """Number of training tasks that form the `dev` split instead, a fixed choice mixed over the types."""
    simplifications: str = "easy"
    """The engine's names, separated by commas; `easy` is teleporting, open doors, flower pots that water themselves, and no
    wiring where a task needs none."""
    ticks: int = 100
    """An episode ends after this much simulated time (`wait` takes ten); 0 sets no limit."""
    success: Literal["score", "won"] = "score"
    """`score`: score 100 solves a task. `won`, for comparison only: as in SPARK's released code, the end of the episode at
    any score above 0 does, which waiting reaches."""
    reward: Literal["success", "score"] = "success"
    """`success`: 1 for success. `score`: each gain of score, up to 1 in all."""
    seeding: Literal["step", "stock"] = "step"
    """`step`: a seed for each step. `stock`: the engine's one random stream, where it also drops questions, as in its
    traces."""
    jvms: int = 1
    """Number of Java processes. A rollout steps its episodes in threads: more processes let more of them step at once."""
    heap: int = 512
    """Most megabytes of worlds in a Java process."""
    timeout: float = 120.0
    """Seconds that a Java process has for a call before it is replaced. The slowest solutions take some seconds to find."""

    def __post_init__(self) -> None:
        for name, least in (("train_tasks", 0), ("dev_tasks", 0), ("ticks", 0), ("jvms", 1), ("heap", 64)):
            if (value := getattr(self, name)) < least:
                raise UsageError(f"scienceworld: {name} is {value}; give {least} or more")
        if not self.timeout > 0:
            raise UsageError(f"scienceworld: timeout is {self.timeout}; give seconds above 0")
        for kind in self.kinds:
            if kind not in VARIATIONS:
                raise unknown_name("ScienceWorld task type", kind, VARIATIONS)
        for name in filter(None, self.simplifications.split(",")):
            if name not in _SIMPLIFICATIONS:
                raise unknown_name("simplification", name, _SIMPLIFICATIONS)
        for field, value, known in (
            ("rule of success", self.success, ("score", "won")),
            ("reward", self.reward, ("success", "score")),
            ("seeding", self.seeding, ("step", "stock")),
        ):
            if value not in known:
                raise unknown_name(f"scienceworld {field}", value, known)

    @property
    def name(self) -> str:
        """Short name, also `Task.environment`."""
        return "scienceworld"

    def tasks(self, level: str, split: str) -> Sequence[Task]:
        """Tasks of a level (`L0`, `L1`, `L2`) and split (`train`, `dev`, `test`).

        Raises:
            UsageError: the level or split is not known, or Java is missing.
        """
        # The `dev` split is drawn before `kinds` applies, so that no task of it ever moves into training.
        ids = variations(level, split, self.dev_tasks)
        if self.kinds:
            ids = [task_id for task_id in ids if named(task_id)[0] in self.kinds]
        return [self.task(task_id) for task_id in (ids[: self.train_tasks or None] if split == "train" else ids)]

    def task(self, task_id: str) -> Task:
        """The task with an id `<type>/<number>`, also where no level has it.

        Raises:
            UsageError: there is no such task, or Java is missing.
        """
        kind, number = named(task_id)
        return Task(self.name, task_id, self.engines().describe(kind)[number], kind)

    def engines(self) -> Engines:
        """The engines that play the tasks."""
        return Engines(Launch(self.heap, self.timeout), self.jvms, self.simplifications, self.seeding)

    def make(self) -> ScienceWorldEnvironment:
        """A new environment; Java starts at the first reset."""
        return ScienceWorldEnvironment(self.engines(), Rules(self.ticks, self.success, self.reward))

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> Policy:
        """An expert that follows the engine's own solutions; `tags` sets how often it explores."""
        return GoldPaths(Solutions(self.engines()), tags)

    def demonstrable(self, tasks: Iterable[Task], horizon: int) -> Iterator[Task]:
        """Tasks whose solution fits the horizon, one of each type in turn."""
        return Solutions(self.engines()).short(tasks, horizon)

    def unlimited(self) -> ScienceWorld:
        """The same world without a limit of simulated time, for recordings of any length."""
        return replace(self, ticks=0)

    def lost(self) -> int:
        """Number of Java processes that died or hung, and were replaced, so far."""
        return self.engines().lost()

    def about(self) -> str:
        """The engine and its version, which `spark-rl env check` prints."""
        return f"ScienceWorld {engine_version()}, {self.engines().about()}"
