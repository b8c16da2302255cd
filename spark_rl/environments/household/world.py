"""The `Household` world: the houses and tasks of each level and split.

Invariants
----------
* A task is a function of the world's options, its level and split, and its number. A task can therefore be rebuilt from its
  id alone.
* No problem (house, contents, goal) is in two of train, dev and test, at any level: the split of a problem is a function of
  the problem.

| level | train | dev, test |
|---|---|---|
| L0 | the training houses | the same houses, other problems |
| L1 | the same as L0 | houses (or contents, by `unseen`) that no training task has |
| L2 | task types other than `held_out` | the held-out types (or goals, by `unseen_goals`), in the houses of L1 |
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from spark_rl.common.seeding import derive
from spark_rl.environments.household.catalogue import KINDS, a, into
from spark_rl.environments.household.engine import HouseholdEnvironment, Scene
from spark_rl.environments.household.expert import Expert
from spark_rl.environments.household.houses import Goal, House, furnish, goals, houses
from spark_rl.environments.searching import plan
from spark_rl.environments.splits import LEVELS, SPLITS, check_names, split_of
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.types import Task

__all__ = ["Household"]

_ATTEMPTS = 200


@dataclass(frozen=True)
class Household:
    """Search a house, treat what you find, and put it where it belongs: six task types, deterministic from a seed."""

    preset: Literal["standard", "hard"] = "standard"
    """`hard`: objects are fragile, sticky or wet, and a wrong handling ruins them for good, which no observation says."""
    kinds: tuple[str, ...] = KINDS
    """Task types in use: place, two, clean, heat, cool, light."""
    held_out: tuple[str, ...] = ("cool", "two")
    """Task types that L2 tests and that its training split lacks."""
    unseen: Literal["houses", "contents"] = "houses"
    """New in L1: houses, or contents of the training houses (which then have few, fixed contents in training)."""
    unseen_goals: Literal["kinds", "pairs"] = "kinds"
    """New in L2: the held-out task types, or combinations of object and target that no training task has."""
    houses: int = 16
    """Number of training houses."""
    unseen_houses: int = 8
    """Number of houses for the test splits of L1 and L2; their dev splits have as many again."""
    contents: int = 32
    """Number of contents of each training house where `unseen` is `contents`; otherwise each task has its own contents."""
    receptacles: tuple[int, int] = (12, 16)
    """Fewest and most receptacles of a house, between 8 and 25."""
    objects: int = 18
    """Portable objects in a house."""
    train_tasks: int = 2000
    dev_tasks: int = 60
    test_tasks: int = 120

    def __post_init__(self) -> None:
        for name in ("kinds", "held_out", "receptacles"):  # lists are welcome
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for kind in (*self.kinds, *self.held_out):
            if kind not in KINDS:
                raise unknown_name("task type", kind, KINDS)
        if not self.kinds:
            raise UsageError(f"env.kinds is empty: name at least one of {', '.join(KINDS)}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise unknown_name(f"env.{name}", str(getattr(self, name)), allowed)
        if len(self.receptacles) != 2 or not 8 <= self.receptacles[0] <= self.receptacles[1] <= 25:
            raise UsageError(f"env.receptacles is {self.receptacles}: give the fewest and the most, between 8 and 25")
        if not 6 <= self.objects <= 30:
            raise UsageError(f"env.objects is {self.objects}: it must lie between 6 and 30")
        at_least("env", self, houses=1, unseen_houses=1, contents=1, train_tasks=1, dev_tasks=1, test_tasks=1)

    @property
    def name(self) -> str:
        """`household`."""
        return "household"

    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        """The tasks of a level and split, types in turn; L1 trains on the tasks of L0.

        Raises:
            UsageError: the level or split is unknown, or the options allow no task there.
        """
        check_names(level, split)
        return _tasks(self, "L0" if (level, split) == ("L1", "train") else level, split, self._count(split))

    def task(self, task_id: str) -> Task:
        """The task with this id (`L0/train/17`).

        Raises:
            UsageError: there is no such task.
        """
        level, _, rest = task_id.partition("/")
        split, _, number = rest.partition("/")
        exists = level in LEVELS and split in SPLITS and (level, split) != ("L1", "train")
        if exists and number.isdecimal() and str(int(number)) == number and int(number) < self._count(split):
            return self._draw(level, split, int(number))
        raise UsageError(f'household has no task "{task_id}"; `spark-rl env tasks household` lists them')

    def make(self) -> HouseholdEnvironment:
        """A new environment."""
        return HouseholdEnvironment(self._scene)

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> Expert:
        """An expert that searches from observations; see `Expert` for the tags."""
        return Expert(self.make, tags)

    def plan(self, task: Task) -> str:
        """A task's steps in words."""
        goal = Goal.read(task.instruction)
        preposition = "under" if goal.kind == "light" else into(goal.target)
        return plan(goal.kind, a(goal.object), f"{preposition} {a(goal.target)}")

    def _count(self, split: str) -> int:
        return int(getattr(self, f"{split}_tasks"))

    def _pool(self) -> tuple[House, ...]:
        """Training houses, then the houses of L1's and L2's dev split, then those of their test split."""
        return houses(self.houses + 2 * self.unseen_houses, *self.receptacles)

    def _scene(self, task: Task) -> Scene:
        try:
            data = task.data
            house = self._pool()[int(data["house"])]
            goal = Goal(data["kind"], data["object"], data["target"])
            if task.environment == self.name:
                return Scene(house, furnish(house, self.objects, data["contents"]), goal, self.preset == "hard")
        except (KeyError, IndexError, TypeError, ValueError):
            pass
        raise UsageError(f"task {task.id} of {task.environment} is no task of the household with these options")

    def _draw(self, level: str, split: str, number: int) -> Task:
        """Draw problems until one belongs to this level and split."""
        new = level != "L0" and split != "train"
        kinds = self._kinds_of_l2(split) if level == "L2" else self.kinds
        if not kinds:
            raise UsageError(f"env.kinds and env.held_out leave no task type for {level}/{split}: name other task types")
        kind = kinds[number % len(kinds)]
        first = (self.houses + self.unseen_houses * (split == "test")) if new and self.unseen == "houses" else 0
        for attempt in range(_ATTEMPTS):
            seed = derive("household", "task", level, split, number, attempt)
            rng = random.Random(seed)
            place = first + rng.randrange(self.unseen_houses if first else self.houses)
            contents = rng.randrange(self.contents) if self.unseen == "contents" and not new else seed
            house = self._pool()[place]
            for goal in _shuffled(goals(house, furnish(house, self.objects, contents), kind), rng):
                withheld = self.unseen_goals == "pairs" and _withheld(goal) != (level == "L2" and new)
                if not withheld and _split_of(place, contents, goal) == split:
                    data = {"house": place, "contents": contents, "kind": kind, "object": goal.object, "target": goal.target}
                    return Task("household", f"{level}/{split}/{number}", goal.sentence, kind, data)
        raise UsageError(
            f'no "{kind}" task found for {level}/{split} in {_ATTEMPTS} tries: raise env.objects, env.contents or env.houses'
        )

    def _kinds_of_l2(self, split: str) -> tuple[str, ...]:
        if self.unseen_goals == "pairs":
            return self.kinds
        return self.held_out if split != "train" else tuple(kind for kind in self.kinds if kind not in self.held_out)


_CHOICES = {"preset": ("standard", "hard"), "unseen": ("houses", "contents"), "unseen_goals": ("kinds", "pairs")}


@lru_cache(maxsize=64)
def _tasks(world: Household, level: str, split: str, count: int) -> tuple[Task, ...]:
    return tuple(world.task(f"{level}/{split}/{number}") for number in range(count))


def _shuffled(choices: Iterable[Goal], rng: random.Random) -> list[Goal]:
    listed = list(choices)
    rng.shuffle(listed)
    return listed


def _split_of(house: int, contents: int, goal: Goal) -> str:
    """The split that a problem belongs to."""
    return split_of("household", "split", house, contents, goal.kind, goal.object, goal.target)


def _withheld(goal: Goal) -> bool:
    """Whether a combination of object and target is only in L2 where `unseen_goals` is `pairs`: a fifth of them are."""
    return derive("household", "pair", goal.object, goal.target) % 5 == 0
