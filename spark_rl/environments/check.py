"""The environment contract as a test: what `spark-rl env check NAME` runs, for any world.

Invariant: a world that passes can be trained on: its forks are exact, its tasks can be written down and asked for
again, its splits are apart, and what it calls admissible it carries out.

Each clause is a method that returns a sentence when all is well and raises `_Broken` with a sentence when not; whatever
else it raises is a failure too. Environments are walked at random and, where there is one, by the expert, in turn.
"""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from spark_rl.common.seeding import derive
from spark_rl.contracts import Environment, World
from spark_rl.environments.registry import find_task
from spark_rl.environments.replay import replay
from spark_rl.errors import UsageError
from spark_rl.prompting.parsing import parse
from spark_rl.types import Observation, Request, Task

__all__ = ["Check", "Report", "check_world"]

_NONSENSE = ("", " ", "xyzzy", "go to the moon 99", "\u00fcn\u00efc\u00f6d\u00e9 \U0001f300\n")
_TRIED = 6
"""Listed actions tried at a state."""


@dataclass(frozen=True)
class Check:
    """One clause of the contract."""

    name: str
    passed: bool
    sentence: str
    """What was found, or what is wrong."""


@dataclass(frozen=True)
class Report:
    """All clauses for one world."""

    world: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every clause holds."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.sentence}" for check in self.checks)


class _Broken(Exception):
    """A clause does not hold."""


def check_world(world: World, *, tasks: int = 5, steps: int = 30, seed: int = 0) -> Report:
    """Check that a world keeps the contract of `environments.base`.

    Args:
        world: the world.
        tasks: how many tasks are walked; each costs about seven resets.
        steps: length of the walks, and the expert's horizon.
        seed: of the choice of tasks and walks.
    """
    checker = _Checker(world, tasks, steps, random.Random(seed))
    clauses: list[tuple[str, Callable[[], str]]] = [
        ("tasks", checker.tasks_are_apart),
        ("task values", checker.tasks_are_values),
        ("unknown names", checker.unknown_names_are_refused),
        ("determinism", checker.resets_are_alike),
        ("fork == replay", checker.forks_are_exact),
        ("isolation", checker.siblings_are_isolated),
        ("listed actions", checker.listed_actions_are_accepted),
        ("other actions", checker.other_actions_change_nothing),
        ("outcomes", checker.outcomes_make_sense),
    ]
    if checker.expert is not None:
        clauses.append(("expert", checker.expert_wins))
    return Report(world.name, tuple(_run(name, clause) for name, clause in clauses))


def _run(name: str, clause: Callable[[], str]) -> Check:
    try:
        return Check(name, True, clause())
    except _Broken as broken:
        return Check(name, False, str(broken))
    except Exception as error:
        return Check(name, False, f"raised {type(error).__name__}: {error}")


@dataclass
class _Walk:
    """A random walk: the actions taken and all that was observed, `seen[i + 1]` after `actions[i]`."""

    task: Task
    actions: list[str]
    seen: list[tuple[Any, ...]]

    @property
    def texts(self) -> list[str]:
        return [text for text, *_ in self.seen]

    @property
    def won(self) -> bool:
        _, _, _, _, success, *_ = self.seen[-1]
        return success


def _all_of(observation: Observation) -> tuple[Any, ...]:
    """Everything an observation says, the lazy list included; the text first."""
    return (
        observation.text,
        observation.actions,
        observation.reward,
        observation.done,
        observation.success,
        observation.admissible,
        dict(observation.progress),
    )


class _Checker:
    def __init__(self, world: World, tasks: int, steps: int, rng: random.Random) -> None:
        self.world, self.count, self.steps, self.rng = world, tasks, steps, rng
        self._splits: dict[tuple[str, str], Sequence[Task]] | None = None
        self._walks: list[_Walk] | None = None
        self.expert: Any = expert() if (expert := getattr(world, "expert", None)) else None

    # -- material ---------------------------------------------------------------------------------------------------

    def splits(self) -> dict[tuple[str, str], Sequence[Task]]:
        """All levels and splits that the world has."""
        if self._splits is None:
            self._splits = {}
            for level in ("L0", "L1", "L2"):
                for split in ("train", "dev", "test"):
                    try:
                        self._splits[level, split] = self.world.tasks(level, split)
                    except UsageError:
                        continue  # a world need not have every level
            self._splits = {key: found for key, found in self._splits.items() if len(found)}
        if not self._splits:
            raise _Broken("no level and split has a task")
        return self._splits

    def sample(self) -> list[Task]:
        """Some tasks from each split in turn."""
        groups = list(self.splits().values())
        return [self.rng.choice(groups[i % len(groups)]) for i in range(self.count)]

    def walks(self) -> list[_Walk]:
        """One walk for each of some tasks; every other one is the expert's, where there is one."""
        if self._walks is None:
            self._walks = [
                self._walk(task, led=bool(i % 2) and self.expert is not None) for i, task in enumerate(self.sample())
            ]
        return self._walks

    def _walk(self, task: Task, *, led: bool) -> _Walk:
        environment = self.world.make()
        observation = environment.reset(task)
        walk = _Walk(task, [], [_all_of(observation)])
        while not observation.done and len(walk.actions) < self.steps:
            action = self._ask_expert(task, observation, walk.actions) if led else self._wander(observation)
            observation = environment.step(action)
            walk.actions.append(action)
            walk.seen.append(_all_of(observation))
        environment.close()
        return walk

    def _ask_expert(self, task: Task, observation: Observation, history: Sequence[str]) -> str:
        request = Request(task, (), observation, (derive(task.id, len(history)),), history=tuple(history))
        [[completion]] = asyncio.run(self.expert.sample([request]))
        parsed = parse(completion.text)
        if not parsed.well_formed:
            raise _Broken(f"{task.id}: the expert's answer is not one reasoning block and one action: {completion.text}")
        return parsed.action

    def _wander(self, observation: Observation) -> str:
        if not observation.actions:
            raise _Broken(f'nothing is admissible, yet the episode goes on: "{observation.text}"')
        return self.rng.choice(observation.actions)

    # -- clauses: tasks ---------------------------------------------------------------------------------------------

    def tasks_are_apart(self) -> str:
        splits = self.splits()
        for (level, split), tasks in splits.items():
            ids = {task.id for task in tasks}
            if len(ids) != len(tasks):
                raise _Broken(f"{level}/{split} has {len(tasks)} tasks but only {len(ids)} ids")
            for other in ("train", "dev", "test"):
                if other != split and (shared := ids & {task.id for task in splits.get((level, other), ())}):
                    raise _Broken(f"{level}/{split} and {level}/{other} share {len(shared)} tasks, such as {min(shared)}")
        counts = ", ".join(f"{level}/{split} {len(tasks)}" for (level, split), tasks in splits.items())
        return f"ids are unique and splits are disjoint ({counts})"

    def tasks_are_values(self) -> str:
        for task in self.sample():
            if task.environment != self.world.name:
                raise _Broken(f'task {task.id} says its environment is "{task.environment}", the world "{self.world.name}"')
            if not task.instruction.strip():
                raise _Broken(f"task {task.id} has no instruction")
            for how, copy in (
                ("pickle", pickle.loads(pickle.dumps(task))),
                ("JSON", Task(**json.loads(json.dumps(asdict(task))))),
                ("its id", find_task(self.world, task.id)),
            ):
                if copy != task:
                    raise _Broken(f"task {task.id} rebuilt from {how} differs: {copy} instead of {task}")
        return "tasks survive pickle and JSON, and are found by their ids"

    def unknown_names_are_refused(self) -> str:
        asked: tuple[tuple[str, Callable[[], Any]], ...] = (
            ('level "L9"', lambda: self.world.tasks("L9", "train")),
            ('split "nowhere"', lambda: self.world.tasks(next(iter(self.splits()))[0], "nowhere")),
            ('task "no such task"', lambda: find_task(self.world, "no such task")),
        )
        for what, ask in asked:
            try:
                answer = ask()
            except UsageError as error:
                if not str(error).strip():
                    raise _Broken(f"{what} is refused without a word") from error
            else:
                raise _Broken(f"{what} should raise UsageError, but gives {str(answer)[:60]}")
        return "unknown level, split and task raise UsageError"

    # -- clauses: environments --------------------------------------------------------------------------------------

    def resets_are_alike(self) -> str:
        used: Environment | None = None
        for walk in self.walks():
            used = used or self.world.make()
            for how, environment in (("a fresh environment", self.world.make()), ("a used environment", used)):
                seen = [_all_of(environment.reset(walk.task)), *(_all_of(environment.step(a)) for a in walk.actions)]
                self._same(f"{walk.task.id} in {how}", walk.actions, walk.seen, seen)
        return f"{len(self.walks())} walks repeat in fresh and in used environments"

    def forks_are_exact(self) -> str:
        forks = 0
        for walk in self.walks():
            environment = self.world.make()
            environment.reset(walk.task)
            cuts = set(self.rng.sample(range(len(walk.actions)), min(4, len(walk.actions))))
            kept: list[tuple[int, Environment]] = []
            for step, action in enumerate(walk.actions):
                if step in cuts:
                    kept.append((step, environment.fork()))
                environment.step(action)
            end = environment.state_key()
            # The forks are used after their parent has gone on to the end.
            for step, fork in kept:
                seen = [_all_of(fork.step(action)) for action in walk.actions[step:]]
                self._same(f"{walk.task.id} forked after step {step}", walk.actions[step:], walk.seen[step + 1 :], seen)
                if fork.state_key() != end:
                    raise _Broken(f"{walk.task.id} forked after step {step}: the same state has two keys")
                fork.close()
                forks += 1
            self._replay(walk)
        return f"{forks} forks answer as a replay does, after their parents have moved on"

    def siblings_are_isolated(self) -> str:
        for walk in self.walks():
            half = len(walk.actions) // 2
            prefix = walk.actions[:half]
            parent = self.world.make()
            observation = parent.reset(walk.task)
            for action in prefix:
                observation = parent.step(action)
            if observation.done:
                continue
            first = parent.fork()
            family = [
                (parent, list(prefix)),
                (first, list(prefix)),
                (first.fork(), list(prefix)),
            ]  # the last is a grandchild
            texts = [walk.texts[: half + 1] for _ in family]
            latest = [observation] * len(family)
            for _ in range(min(6, self.steps)):
                for i, (environment, actions) in enumerate(family):
                    if not latest[i].done:
                        actions.append(self._wander(latest[i]))
                        latest[i] = environment.step(actions[-1])
                        texts[i] = [*texts[i], latest[i].text]
            for (environment, actions), lines in zip(family, texts, strict=True):
                fresh = self.world.make()
                replay(fresh, walk.task, actions, lines)
                if fresh.state_key() != environment.state_key():
                    raise _Broken(f"{walk.task.id}: a sibling's steps changed the state of another")
                environment.close()
                fresh.close()
        return "parents, children and grandchildren stepped in turn do not disturb one another"

    def listed_actions_are_accepted(self) -> str:
        tried = 0
        for walk in self.walks():
            environment = self.world.make()
            observation = environment.reset(walk.task)
            # One state, deep in the walk: a fork may cost a replay.
            for action in walk.actions[: self.rng.randrange(len(walk.actions) or 1)]:
                observation = environment.step(action)
            actions = observation.actions
            if len(set(actions)) != len(actions):
                raise _Broken(f"{walk.task.id}: the list of actions names one twice")
            for action in self.rng.sample(actions, min(_TRIED, len(actions))):
                fork = environment.fork()
                if not fork.step(action).admissible:
                    raise _Broken(f'{walk.task.id}: "{action}" is listed, but not admissible when taken')
                fork.close()
                tried += 1
        return f"{tried} listed actions are carried out"

    def other_actions_change_nothing(self) -> str:
        for walk in self.walks():
            environment = self.world.make()
            environment.reset(walk.task)
            for step, action in enumerate(walk.actions[: 2 * len(_NONSENSE)]):
                if step % 2 == 0:
                    nonsense = _NONSENSE[step // 2]
                    answer = environment.step(nonsense)
                    if answer.admissible:
                        raise _Broken(f"{walk.task.id}: {nonsense!r} is called admissible")
                    if answer.done or answer.success:
                        raise _Broken(f"{walk.task.id}: {nonsense!r} ends the episode")
                seen = [_all_of(environment.step(action))]
                self._same(f"{walk.task.id} after nonsense", [action], [walk.seen[step + 1]], seen)
        return "empty and senseless actions are refused and change nothing"

    def outcomes_make_sense(self) -> str:
        for walk in self.walks():
            for text, _, reward, done, success, _, progress in walk.seen:
                if not all(0 <= value <= 1 for value in progress.values()):
                    raise _Broken(f"{walk.task.id}: a measure of progress is not from 0 to 1: {progress}")
                if success and not done:
                    raise _Broken(f'{walk.task.id}: success without an end at "{text}"')
                if not math.isfinite(reward):
                    raise _Broken(f"{walk.task.id}: a reward is {reward}")
                if not text.strip():
                    raise _Broken(f"{walk.task.id}: an observation is empty")
            if walk.seen[0][3]:
                raise _Broken(f"{walk.task.id} is done before the first step")
        return "rewards are finite, observations say something, and success ends the episode"

    def expert_wins(self) -> str:
        tasks = self.sample()
        if (choose := getattr(self.world, "demonstrable", None)) is not None:  # an expert that cannot win everywhere
            every = [task for some in self.splits().values() for task in some]
            fitting: Iterable[Task] = choose(self.rng.sample(every, len(every)), self.steps)
            tasks = list(islice(fitting, self.count))
        walks = [self._walk(task, led=True) for task in tasks]
        wins = sum(walk.won for walk in walks)
        if 2 * wins < len(walks):
            raise _Broken(f"the expert wins {wins} of {len(walks)} tasks in {self.steps} steps")
        return f"the expert wins {wins} of {len(walks)} tasks in {self.steps} steps"

    # -- comparisons ------------------------------------------------------------------------------------------------

    def _replay(self, walk: _Walk) -> None:
        environment = self.world.make()
        replay(environment, walk.task, walk.actions, walk.texts)
        environment.close()

    @staticmethod
    def _same(where: str, actions: Sequence[str], expected: list[tuple[Any, ...]], got: list[tuple[Any, ...]]) -> None:
        names = ("observation", "list of actions", "reward", "end", "success", "admissibility", "progress")
        before = ["reset"] * (len(expected) - len(actions)) + list(actions)
        for action, one, other in zip(before, expected, got, strict=True):
            for name, x, y in zip(names, one, other, strict=True):
                if x != y:
                    raise _Broken(f'{where}: after "{action}" the {name} differs: {x!r} and {y!r}')
