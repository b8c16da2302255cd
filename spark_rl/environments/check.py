"""The environment contract as a test of any world: `spark-rl env check NAME` runs it.

Invariant: a world that passes can be trained on. Its forks are exact, its tasks can be saved and loaded, its splits are
disjoint, it carries out every action that it lists, and a replayed state has the same observation as the original.

Each clause is a function of the material (`_Material`: the world, some of its tasks, walks through them). It returns a
sentence when the clause holds and raises `_Broken` with a sentence when it does not; any other exception is a failure too.
Every other walk follows the expert, where there is one; all others are random.
"""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import islice

from spark_rl.common.seeding import derive
from spark_rl.contracts import Demonstrates, Environment, Policy, SelectsTasks, World
from spark_rl.environments.registry import find_task
from spark_rl.environments.replay import walk as walk_again
from spark_rl.errors import UsageError
from spark_rl.prompting.parsing import parse
from spark_rl.types import Observation, Request, Task

__all__ = ["Check", "Report", "check_world"]

_NONSENSE = ("", " ", "xyzzy", "go to the moon 99", "\u00fcn\u00efc\u00f6d\u00e9 \U0001f300\n")
_TRIED = 6
"""Most listed actions that are tried at a state."""


@dataclass(frozen=True)
class Check:
    """One clause of the contract."""

    name: str
    passed: bool
    sentence: str
    """What was checked, or what is wrong."""


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
    """Check that a world fulfils the contracts `contracts.World` and `contracts.Environment`.

    Args:
        world: the world.
        tasks: number of tasks to walk through; each costs about seven resets.
        steps: length of the walks, and the expert's horizon.
        seed: seed of the choice of tasks and walks.
    """
    expert = world.expert() if isinstance(world, Demonstrates) else None
    clauses = {**_CLAUSES, **({"expert": _expert_wins} if expert is not None else {})}
    with asyncio.Runner() as loop:
        material = _Material(world, tasks, steps, random.Random(seed), expert, loop)
        return Report(world.name, tuple(_run(name, clause, material) for name, clause in clauses.items()))


# -- material ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """The values of an observation, lazy lists included."""

    text: str
    actions: tuple[str, ...]
    brief: tuple[str, ...]
    shown: tuple[str, ...]
    reward: float
    done: bool
    success: bool
    admissible: bool
    progress: dict[str, float]

    @classmethod
    def of(cls, observation: Observation) -> _Seen:
        brief = observation.brief() if callable(observation.brief) else observation.brief
        return cls(
            observation.text,
            observation.actions,
            tuple(brief),
            observation.shown,
            observation.reward,
            observation.done,
            observation.success,
            observation.admissible,
            dict(observation.progress),
        )


_IN_WORDS = {
    "text": "observation",
    "actions": "list of actions",
    "brief": "short form of the list of actions",
    "shown": "list of actions in prompts",
    "reward": "reward",
    "done": "end",
    "success": "success",
    "admissible": "admissibility",
    "progress": "progress",
}
"""Names of the fields of `_Seen` in sentences."""


def _same(where: str, actions: Sequence[str], expected: Sequence[_Seen], got: Sequence[_Seen]) -> None:
    before = ["reset"] * (len(expected) - len(actions)) + list(actions)
    for action, one, other in zip(before, expected, got, strict=True):
        for field in fields(_Seen):
            x, y = getattr(one, field.name), getattr(other, field.name)
            if x != y:
                raise _Broken(f'{where}: after "{action}" the {_IN_WORDS[field.name]} differs: {x!r} and {y!r}')


@dataclass(frozen=True)
class _Walk:
    """The actions and observations of an episode; `seen[i + 1]` comes after `actions[i]`."""

    task: Task
    actions: list[str]
    seen: list[_Seen]


@dataclass(frozen=True)
class _Material:
    """The input of the clauses. Splits and walks are made when a clause first reads them."""

    world: World
    count: int
    """Number of tasks to walk through."""
    steps: int
    rng: random.Random
    expert: Policy | None
    loop: asyncio.Runner
    """The event loop in which the expert is asked."""

    @cached_property
    def splits(self) -> dict[tuple[str, str], Sequence[Task]]:
        """All levels and splits that have a task."""
        splits: dict[tuple[str, str], Sequence[Task]] = {}
        for level in ("L0", "L1", "L2"):
            for split in ("train", "dev", "test"):
                try:
                    splits[level, split] = self.world.tasks(level, split)
                except UsageError:
                    continue  # a world need not have every level
        splits = {key: tasks for key, tasks in splits.items() if len(tasks)}
        if not splits:
            raise _Broken("no level and split has a task")
        return splits

    @cached_property
    def walks(self) -> list[_Walk]:
        """A walk through each sampled task; every other walk is the expert's, where there is an expert."""
        return [_walk(self, task, self.expert if i % 2 else None) for i, task in enumerate(self.sample())]

    def sample(self) -> list[Task]:
        """Some tasks from each split in turn."""
        groups = list(self.splits.values())
        return [self.rng.choice(groups[i % len(groups)]) for i in range(self.count)]


def _walk(material: _Material, task: Task, policy: Policy | None) -> _Walk:
    """A walk by a policy, or a random one where the policy is None."""
    environment = material.world.make()
    observation = environment.reset(task)
    walk = _Walk(task, [], [_Seen.of(observation)])
    while not observation.done and len(walk.actions) < material.steps:
        action = _ask(material, policy, task, observation, walk.actions) if policy else _wander(observation, material.rng)
        observation = environment.step(action)
        walk.actions.append(action)
        walk.seen.append(_Seen.of(observation))
    environment.close()
    return walk


def _ask(material: _Material, expert: Policy, task: Task, observation: Observation, history: Sequence[str]) -> str:
    request = Request(task, (), observation, (derive(task.id, len(history)),), history=tuple(history))
    [[completion]] = material.loop.run(expert.sample([request]))
    parsed = parse(completion.text)
    if not parsed.well_formed:
        raise _Broken(f"{task.id}: the expert's answer is not one reasoning block and one action: {completion.text}")
    return parsed.action


def _wander(observation: Observation, rng: random.Random) -> str:
    if not observation.actions:
        raise _Broken(f'nothing is admissible, yet the episode is not done: "{observation.text}"')
    return rng.choice(observation.actions)


# -- clauses: tasks ----------------------------------------------------------------------------------------------------


def _tasks_are_apart(material: _Material) -> str:
    splits = material.splits
    for (level, split), tasks in splits.items():
        ids = {task.id for task in tasks}
        if len(ids) != len(tasks):
            raise _Broken(f"{level}/{split} has {len(tasks)} tasks but only {len(ids)} ids")
        for other in ("train", "dev", "test"):
            if other != split and (shared := ids & {task.id for task in splits.get((level, other), ())}):
                raise _Broken(f"{level}/{split} and {level}/{other} share {len(shared)} tasks, such as {min(shared)}")
    counts = ", ".join(f"{level}/{split} {len(tasks)}" for (level, split), tasks in splits.items())
    return f"ids are unique and splits are disjoint ({counts})"


def _tasks_are_values(material: _Material) -> str:
    for task in material.sample():
        if task.environment != material.world.name:
            raise _Broken(f'task {task.id} has the environment "{task.environment}", its world is "{material.world.name}"')
        if not task.instruction.strip():
            raise _Broken(f"task {task.id} has no instruction")
        for how, copy in (
            ("pickle", pickle.loads(pickle.dumps(task))),
            ("JSON", Task(**json.loads(json.dumps(asdict(task))))),
            ("its id", find_task(material.world, task.id)),
        ):
            if copy != task:
                raise _Broken(f"task {task.id} rebuilt from {how} differs: {copy} instead of {task}")
    return "tasks survive pickle and JSON, and are found by their ids"


def _unknown_names_are_refused(material: _Material) -> str:
    requests: tuple[tuple[str, Callable[[], object]], ...] = (
        ('level "L9"', lambda: material.world.tasks("L9", "train")),
        ('split "nowhere"', lambda: material.world.tasks(next(iter(material.splits))[0], "nowhere")),
        ('task "no such task"', lambda: find_task(material.world, "no such task")),
    )
    for what, request in requests:
        try:
            answer = request()
        except UsageError as error:
            if not str(error).strip():
                raise _Broken(f"{what} is refused with an empty message") from error
        else:
            raise _Broken(f"{what} should raise UsageError, but gives {str(answer)[:60]}")
    return "unknown level, split and task raise UsageError"


# -- clauses: environments ---------------------------------------------------------------------------------------------


def _resets_are_alike(material: _Material) -> str:
    used: Environment | None = None
    for walk in material.walks:
        used = used or material.world.make()
        for how, environment in (("a new environment", material.world.make()), ("a used environment", used)):
            seen = [_Seen.of(environment.reset(walk.task)), *(_Seen.of(environment.step(a)) for a in walk.actions)]
            _same(f"{walk.task.id} in {how}", walk.actions, walk.seen, seen)
    return f"{len(material.walks)} walks repeat in new and in used environments"


def _forks_are_exact(material: _Material) -> str:
    forks = 0
    for walk in material.walks:
        environment = material.world.make()
        environment.reset(walk.task)
        cuts = set(material.rng.sample(range(len(walk.actions)), min(4, len(walk.actions))))
        copies: list[tuple[int, Environment]] = []
        for step, action in enumerate(walk.actions):
            if step in cuts:
                copies.append((step, environment.fork()))
            environment.step(action)
        end = environment.state_key()
        # The forks take their steps after their parent has reached the end.
        for step, fork in copies:
            seen = [_Seen.of(fork.step(action)) for action in walk.actions[step:]]
            _same(f"{walk.task.id} forked after step {step}", walk.actions[step:], walk.seen[step + 1 :], seen)
            if fork.state_key() != end:
                raise _Broken(f"{walk.task.id} forked after step {step}: the same state has two keys")
            fork.close()
            forks += 1
        again = material.world.make()
        seen = [_Seen.of(observation) for observation in walk_again(again, walk.task, walk.actions)]
        _same(f"{walk.task.id} replayed", walk.actions, walk.seen, seen)
        again.close()
    return f"{forks} forks answer as a replay does, after their parents have moved on"


@dataclass
class _Member:
    """One of several environments that were forked from one another."""

    environment: Environment
    actions: list[str]
    """All actions from the start of the task."""
    seen: list[_Seen]
    latest: Observation

    def take(self, action: str) -> None:
        self.latest = self.environment.step(action)
        self.actions.append(action)
        self.seen.append(_Seen.of(self.latest))


def _siblings_are_isolated(material: _Material) -> str:
    for walk in material.walks:
        half = len(walk.actions) // 2
        prefix = walk.actions[:half]
        parent = material.world.make()
        observation = parent.reset(walk.task)
        for action in prefix:
            observation = parent.step(action)
        if observation.done:
            continue
        child = parent.fork()
        family = [_Member(one, list(prefix), walk.seen[: half + 1], observation) for one in (parent, child, child.fork())]
        for _ in range(min(6, material.steps)):
            for member in family:
                if not member.latest.done:
                    member.take(_wander(member.latest, material.rng))
        for member in family:
            again = material.world.make()
            seen = [_Seen.of(observation) for observation in walk_again(again, walk.task, member.actions)]
            _same(f"{walk.task.id} replayed", member.actions, member.seen, seen)
            if again.state_key() != member.environment.state_key():
                raise _Broken(f"{walk.task.id}: a sibling's steps changed the state of another")
            member.environment.close()
            again.close()
    return "parents, children and grandchildren stepped in turn do not disturb one another"


def _listed_actions_are_accepted(material: _Material) -> str:
    tried = 0
    for walk in material.walks:
        environment = material.world.make()
        observation = environment.reset(walk.task)
        # Only one state of the walk, since a fork may cost a replay.
        for action in walk.actions[: material.rng.randrange(len(walk.actions) or 1)]:
            observation = environment.step(action)
        actions = observation.actions
        if len(set(actions)) != len(actions):
            raise _Broken(f"{walk.task.id}: the list of actions contains an action twice")
        for action in material.rng.sample(actions, min(_TRIED, len(actions))):
            fork = environment.fork()
            if not fork.step(action).admissible:
                raise _Broken(f'{walk.task.id}: "{action}" is listed, but not admissible when taken')
            fork.close()
            tried += 1
    return f"{tried} listed actions are carried out"


def _other_actions_change_nothing(material: _Material) -> str:
    for walk in material.walks:
        environment = material.world.make()
        environment.reset(walk.task)
        for step, action in enumerate(walk.actions[: 2 * len(_NONSENSE)]):
            if step % 2 == 0:
                nonsense = _NONSENSE[step // 2]
                answer = environment.step(nonsense)
                if answer.admissible:
                    raise _Broken(f"{walk.task.id}: {nonsense!r} counts as admissible")
                if answer.done or answer.success:
                    raise _Broken(f"{walk.task.id}: {nonsense!r} ends the episode")
            seen = [_Seen.of(environment.step(action))]
            _same(f"{walk.task.id} after nonsense", [action], [walk.seen[step + 1]], seen)
    return "empty and senseless actions are refused and change nothing"


def _outcomes_make_sense(material: _Material) -> str:
    for walk in material.walks:
        for seen in walk.seen:
            if not all(0 <= value <= 1 for value in seen.progress.values()):
                raise _Broken(f"{walk.task.id}: a measure of progress is not from 0 to 1: {seen.progress}")
            if seen.success and not seen.done:
                raise _Broken(f'{walk.task.id}: success without an end at "{seen.text}"')
            if not math.isfinite(seen.reward):
                raise _Broken(f"{walk.task.id}: a reward is {seen.reward}")
            if not seen.text.strip():
                raise _Broken(f"{walk.task.id}: an observation is empty")
        if walk.seen[0].done:
            raise _Broken(f"{walk.task.id} is done before the first step")
    return "rewards are finite, observations say something, and success ends the episode"


def _expert_wins(material: _Material) -> str:
    tasks = material.sample()
    if isinstance(material.world, SelectsTasks):  # the expert cannot solve every task
        every = [task for some in material.splits.values() for task in some]
        fitting = material.world.demonstrable(material.rng.sample(every, len(every)), material.steps)
        tasks = list(islice(fitting, material.count))
    walks = [_walk(material, task, material.expert) for task in tasks]
    wins = sum(walk.seen[-1].success for walk in walks)
    if 2 * wins < len(walks):
        raise _Broken(f"the expert wins {wins} of {len(walks)} tasks in {material.steps} steps")
    return f"the expert wins {wins} of {len(walks)} tasks in {material.steps} steps"


# -- the table ---------------------------------------------------------------------------------------------------------

_Clause = Callable[[_Material], str]

_CLAUSES: dict[str, _Clause] = {
    "tasks": _tasks_are_apart,
    "task values": _tasks_are_values,
    "unknown names": _unknown_names_are_refused,
    "determinism": _resets_are_alike,
    "fork == replay": _forks_are_exact,
    "isolation": _siblings_are_isolated,
    "listed actions": _listed_actions_are_accepted,
    "other actions": _other_actions_change_nothing,
    "outcomes": _outcomes_make_sense,
}
"""The clauses for every world, in the order of the checks."""


def _run(name: str, clause: _Clause, material: _Material) -> Check:
    try:
        return Check(name, True, clause(material))
    except _Broken as broken:
        return Check(name, False, str(broken))
    except Exception as error:
        return Check(name, False, f"raised {type(error).__name__}: {error}")
