"""The contract check passes what is right and names what is wrong, clause by clause."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from spark_rl.environments.check import check_world
from spark_rl.environments.household import Household
from spark_rl.errors import UsageError
from spark_rl.policies.scripted import Script
from spark_rl.types import Observation, Task


class Counter:
    """Count up to the task's number with `up`; `down` goes back. Right in every way."""

    fork_cost = "cheap"

    def reset(self, task: Task) -> Observation:
        self.goal, self.path = task.data["goal"], []
        return self.observe()

    @property
    def value(self) -> int:
        return self.path.count("up") - self.path.count("down")

    def step(self, action: str) -> Observation:
        if action not in ("up", "down"):
            return Observation("Nothing happens.", ("up", "down"), admissible=False)
        self.path = [*self.path, action]
        return self.observe()

    def observe(self) -> Observation:
        won = self.value == self.goal
        return Observation(f"The counter shows {self.value}.", ("up", "down"), float(won), won, won)

    def fork(self) -> Counter:
        return copy.copy(self)

    def state_key(self) -> str:
        return str(self.value)

    def close(self) -> None: ...


@dataclass(frozen=True)
class Counting:
    environment: type[Counter] = Counter
    name: str = "counting"

    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        if level != "L0" or split not in ("train", "test"):
            raise UsageError(f"counting has no {level}/{split}")
        return tuple(Task("counting", f"{split}/{goal}", f"count to {goal}", data={"goal": goal}) for goal in (2, 3, 4))

    def make(self) -> Counter:
        return self.environment()


# -- environments that are wrong in one way ---------------------------------------------------------------------------


class Random(Counter):
    ticks = itertools.count()

    def observe(self) -> Observation:
        return Observation(f"Tick {next(self.ticks)}.", ("up", "down"))


class Stained(Counter):
    """Remembers across resets."""

    steps = 0

    def step(self, action: str) -> Observation:
        self.steps += 1
        return super().step(action)

    def observe(self) -> Observation:
        return Observation(f"The counter shows {self.value} after {self.steps} steps.", ("up", "down"))


class Shared(Counter):
    """Forks share one list."""

    def step(self, action: str) -> Observation:
        if action in ("up", "down"):
            self.path.append(action)
            return self.observe()
        return super().step(action)


class Forgetful(Counter):
    """Forks start anew."""

    def fork(self) -> Counter:
        other = copy.copy(self)
        other.path = []
        return other


class Boastful(Counter):
    """Lists an action that it does not know."""

    def observe(self) -> Observation:
        return Observation(super().observe().text, ("up", "down", "fly"))


class Gullible(Counter):
    """Takes anything for an action."""

    def step(self, action: str) -> Observation:
        self.path = [*self.path, action]
        return self.observe()


class Fidgety(Counter):
    """Nonsense is refused and yet counts."""

    def step(self, action: str) -> Observation:
        if action not in ("up", "down"):
            self.path = [*self.path, "up"]
        return super().step(action)


class Endless(Counter):
    """Success does not end it."""

    def observe(self) -> Observation:
        seen = super().observe()
        return Observation(seen.text, seen.listing, seen.reward, False, True)


class Infinite(Counter):
    def observe(self) -> Observation:
        return Observation("Much.", ("up", "down"), reward=float("inf"))


class Dead(Counter):
    def reset(self, task: Task) -> Observation:
        raise OSError("the engine is gone")


class Coy(Counter):
    """Copies show prompts something else."""

    forked = False

    def observe(self) -> Observation:
        return replace(super().observe(), brief=("<up>",) if self.forked else ("<up or down>",))

    def fork(self) -> Counter:
        other = copy.copy(self)
        other.forked = True
        return other


class Weary(Counter):
    """Every time that it is begun again prompts are shown something else, and only when they look."""

    resets = itertools.count()

    def reset(self, task: Task) -> Observation:
        self.number = next(self.resets)
        return super().reset(task)

    def observe(self) -> Observation:
        number = self.number
        return replace(super().observe(), brief=lambda: (f"<up or down, attempt {number}>",))


class Parting(Counter):
    """Copies list their actions in another order."""

    order = ("up", "down")

    def observe(self) -> Observation:
        return replace(super().observe(), listing=lambda: self.order)

    def fork(self) -> Counter:
        other = copy.copy(self)
        other.order = ("down", "up")
        return other


class Distracted(Counter):
    """Copies show prompts something else, but only below zero."""

    forked = False

    def observe(self) -> Observation:
        return replace(super().observe(), brief=("<lost>",) if self.forked and self.value < 0 else ("<up or down>",))

    def fork(self) -> Counter:
        other = copy.copy(self)
        other.forked = True
        return other


# -- worlds that are wrong in one way ---------------------------------------------------------------------------------


class Overlapping(Counting):
    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        return super().tasks(level, "train") if split in ("train", "test") else super().tasks(level, split)


class Doubled(Counting):
    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        return super().tasks(level, split) * 2


class Lenient(Counting):
    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        return super().tasks("L0", "train")


class Foreign(Counting):
    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        return tuple(Task("elsewhere", task.id, task.instruction, data=task.data) for task in super().tasks(level, split))


class Unwritable(Counting):
    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        return tuple(Task("counting", t.id, t.instruction, data={**t.data, "set": {1}}) for t in super().tasks(level, split))


class Empty(Counting):
    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        raise UsageError("none left")


class Led(Counting):
    lines: ClassVar[list[str]] = ["up"]

    def expert(self) -> Script:
        return Script(self.lines)


class Misled(Led):
    lines: ClassVar[list[str]] = ["up", "down", "up", "down", "up", "down", "up", "down"]


class Mumbling(Led):
    lines: ClassVar[list[str]] = ["<think>up</think>"]


def failed(world: Any, **options: int) -> dict[str, str]:
    report = check_world(world, **options)
    assert report.passed == all(check.passed for check in report.checks)
    return {check.name: check.sentence for check in report.checks if not check.passed}


@pytest.mark.parametrize(
    "world", [Counting(), Led(), Household(train_tasks=40), Household(preset="hard", train_tasks=40)], ids=str
)
def test_what_is_right_passes(world):
    report = check_world(world, tasks=6, steps=20)
    assert report.passed, str(report)
    assert ("expert" in {check.name for check in report.checks}) == hasattr(world, "expert")
    assert str(report).startswith("pass  tasks: ids are unique")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("environment", "clause", "says"),
    [
        (Random, "determinism", "the observation differs"),
        (Stained, "determinism", "in a used environment"),
        (Shared, "fork == replay", "the observation differs"),
        (Forgetful, "fork == replay", "the observation differs"),
        (Boastful, "listed actions", '"fly" is listed, but not admissible'),
        (Gullible, "other actions", "counts as admissible"),
        (Fidgety, "other actions", "after nonsense"),
        (Coy, "fork == replay", "the short form of the list of actions differs: ('<up or down>',) and ('<up>',)"),
        (Coy, "isolation", "the short form of the list of actions differs"),
        (Weary, "determinism", "the short form of the list of actions differs: ('<up or down, attempt "),
        (Weary, "fork == replay", "the short form of the list of actions differs"),
        (Weary, "isolation", "the short form of the list of actions differs"),
        (Distracted, "isolation", "the short form of the list of actions differs: ('<lost>',) and ('<up or down>',)"),
        (Parting, "fork == replay", "the list of actions differs: ('up', 'down') and ('down', 'up')"),
        (Endless, "outcomes", "success without an end"),
        (Infinite, "outcomes", "a reward is inf"),
        (Dead, "determinism", "raised OSError: the engine is gone"),
    ],
)
def test_a_wrong_environment_is_named(environment, clause, says, seed):
    found = failed(Counting(environment), tasks=6, steps=12, seed=seed)
    assert clause in found
    assert says in found[clause]


@pytest.mark.parametrize(
    ("world", "clause", "says"),
    [
        (Overlapping(), "tasks", "L0/train and L0/test share 3 tasks, such as train/2"),
        (Doubled(), "tasks", "L0/train has 6 tasks but only 3 ids"),
        (Lenient(), "unknown names", 'level "L9" should raise UsageError'),
        (Foreign(), "task values", 'has the environment "elsewhere"'),
        (Unwritable(), "task values", "not JSON serializable"),
        (Empty(), "tasks", "no level and split has a task"),
        (Misled(), "expert", "the expert wins 0 of 5 tasks"),
        (Mumbling(), "expert", "not one reasoning block and one action"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_world_is_named(world, clause, says):
    assert says in failed(world, steps=8)[clause]


def test_sharing_disturbs_siblings():
    assert "isolation" in failed(Counting(Shared), tasks=8)
