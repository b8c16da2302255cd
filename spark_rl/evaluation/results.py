"""The numbers of an evaluation: what they are, how they come from its episodes, and how they are written as JSON.

Invariants
----------
* A task whose environment failed counts as not solved, and is reported; it is never left out of the denominator.
* `LevelResult` is the one description of a result. `to_json` and `from_json` alone know its form in eval.json, results.json
  and the cells of a comparison: a number that is added to the class is written and read without another line.
* What an older version wrote can be read: `from_json` says what stands for a field that is not there.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

from spark_rl.errors import StorageError
from spark_rl.evaluation.episodes import Episode, Played, episode
from spark_rl.evaluation.lookahead import CHOICES
from spark_rl.evaluation.statistics import clustered, pass_at
from spark_rl.rollout.metrics import ratios, step_counts
from spark_rl.types import Spent, Task, Tree

__all__ = [
    "NEEDED",
    "BranchingResult",
    "KindResult",
    "LevelResult",
    "Levels",
    "Mean",
    "conclude",
    "development",
    "from_json",
    "levels_from_json",
    "levels_to_json",
    "summary",
    "to_json",
]

NEEDED = ("success", "low", "high", "wins", "tasks")
"""What a saved result must hold, so that a table of results can be written."""
DEVELOPMENT = ("success", "low", "high", "steps", "invalid_ratio")
"""Numbers of the development slice that a row of metrics.jsonl has, under their names with `dev_` before them."""


@dataclass(frozen=True)
class KindResult:
    """What the episodes of one task type came to."""

    wins: int
    """Episodes that solved their task."""
    tasks: int
    """Episodes, those that failed included."""


@dataclass(frozen=True)
class Mean:
    """One measure, averaged in two ways."""

    tasks: float
    """Mean over tasks."""
    types: float
    """Mean over task types of the mean over the tasks of a type."""


@dataclass(frozen=True, kw_only=True)
class BranchingResult:
    """What choosing among the leaves of a tree brought, beside the trajectory that is played without branching.

    Means are over all episodes. One whose environment failed was solved by neither.
    """

    leaves: float
    """Leaves of a tree."""
    by_rule: Mapping[str, float]
    """Success of the trajectory that a rule would have chosen, of each rule of `lookahead.CHOICES` that every tree could be
    asked by. As JSON each is a number of its own: `by_majority`, `by_likelihood`."""
    alone: float
    """Success of the trajectory without branching."""
    gained: int
    """Episodes that the chosen trajectory alone solved."""
    lost: int
    """Episodes that the trajectory without branching alone solved."""
    pass_at_leaves: float
    """Share of episodes in which some leaf succeeded. It looks at outcomes, and is no success."""
    alone_tokens: float
    """Tokens sampled along the trajectory without branching."""
    alone_steps: float
    """Steps of the trajectory without branching."""


@dataclass(frozen=True, kw_only=True)
class LevelResult:
    """What an evaluation found on one level: every task played `samples` times, those that failed as not solved.

    The order of the fields is their order in files. Shares are from 0 to 1.
    """

    success: float
    """Share of the episodes that solved their task."""
    low: float
    """Lower end of the 95 % interval of `success` (`statistics.clustered`)."""
    high: float
    """Upper end of the 95 % interval of `success`."""
    wins: int
    """Episodes that solved their task."""
    tasks: int
    """Tasks of the level."""
    samples: int
    """Episodes of each task."""
    episodes: int
    """Episodes: `tasks` times `samples`."""
    score: float
    """Mean sum of rewards of an episode; an episode that failed has 0."""
    steps: float
    """Mean steps of an episode, those that failed left out; 0 without any."""
    steps_won: float
    """Mean steps of an episode that solved its task; 0 without any."""
    explore_ratio: float
    """Share of the steps in explore mode."""
    malformed_ratio: float
    """Share of the steps whose completion was malformed."""
    inadmissible_ratio: float
    """Share of the steps that were well formed and whose action was not admissible."""
    invalid_ratio: float
    """Share of the steps that were malformed or inadmissible."""
    repetitive_ratio: float
    """Share of the steps whose action was taken earlier on the trajectory at the same state key."""
    truncated_ratio: float
    """Share of the steps whose prompt was shortened to fit."""
    empty_ratio: float
    """Share of the steps whose completion was empty."""
    tokens: float
    """Tokens sampled in an episode, with all that was tried."""
    env_steps: float
    """Environment steps of an episode, with all that was tried and those that were replayed."""
    prefilled: int
    """Prompt tokens of the whole evaluation that went through the model."""
    reused: int
    """Prompt tokens of the whole evaluation that came from the cache."""
    discarded: int
    """Tokens of the whole evaluation whose completion was thrown away."""
    failed: int
    """Episodes whose environment failed."""
    failures: tuple[str, ...]
    """A sentence for each environment that failed."""
    kinds: Mapping[str, KindResult]
    """Wins and episodes by task type."""
    averages: Mapping[str, Mean]
    """Means of success, and of each measure of progress at an episode's end."""
    pass_at: Mapping[str, float] = field(default_factory=dict[str, float])
    """Unbiased Pass@k by k; empty, and not written, where none was asked for."""
    branching: BranchingResult | None = None
    """What choosing brought; None, and not written, where there was nothing to choose."""


Levels = Mapping[str, LevelResult]
"""The results of an evaluation by level."""


# -- as JSON ------------------------------------------------------------------------------------------------------------


def to_json(result: LevelResult) -> dict[str, Any]:
    """The result as files hold it."""
    saved: dict[str, Any] = asdict(result)
    saved["failures"] = list(result.failures)
    if not result.pass_at:
        del saved["pass_at"]
    if result.branching is None:
        del saved["branching"]
    else:
        numbers: list[tuple[str, Any]] = []
        for name, value in saved["branching"].items():
            numbers += [(f"by_{rule}", share) for rule, share in value.items()] if name == "by_rule" else [(name, value)]
        saved["branching"] = dict(numbers)
    return saved


def from_json(saved: object, *, needed: Sequence[str] = NEEDED) -> LevelResult:
    """A result from what a file holds of it. Names that this version does not know are left out.

    A file of an older version, or a cell of a comparison, holds a part. What is not there is NaN where it is a mean or a
    share, 0 where it is a count, one sample of each task, and empty where it is a table.

    Args:
        saved: the JSON value.
        needed: names that must be there.

    Raises:
        StorageError: it is no result; the sentence says what is wrong with it.
    """
    if not isinstance(saved, dict):
        raise StorageError("a result must be an object")
    given = cast("dict[str, Any]", saved)
    if missing := [name for name in needed if name not in given]:
        raise StorageError(f"a result has no {missing[0]}: it was not written by an evaluation, or is damaged")
    try:
        samples = given.get("samples", 1)
        found = {"samples": samples, "episodes": given.get("tasks", 0) * samples} | given
        values: dict[str, Any] = {name: float(found.get(name, math.nan)) for name in _of_type(LevelResult, "float")}
        values |= {name: int(found.get(name, 0)) for name in _of_type(LevelResult, "int")}
        return LevelResult(
            **values,
            failures=tuple(map(str, found.get("failures", []))),
            kinds={kind: KindResult(pair["wins"], pair["tasks"]) for kind, pair in found.get("kinds", {}).items()},
            averages={
                name: Mean(mean["tasks"], mean.get("types", math.nan)) for name, mean in found.get("averages", {}).items()
            },
            pass_at={k: float(share) for k, share in found.get("pass_at", {}).items()},
            branching=_branching_from_json(found["branching"]) if found.get("branching") else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"a result cannot be read ({error!r})") from error


def levels_to_json(results: Levels) -> dict[str, dict[str, Any]]:
    """The results of all levels as files hold them."""
    return {level: to_json(result) for level, result in results.items()}


def levels_from_json(saved: object, *, needed: Sequence[str] = NEEDED) -> dict[str, LevelResult]:
    """The results of all levels from what a file holds of them; takes and raises what `from_json` does."""
    if not isinstance(saved, dict):
        raise StorageError("results must be an object with a result a level")
    return {level: from_json(result, needed=needed) for level, result in cast("dict[str, object]", saved).items()}


def _branching_from_json(saved: Mapping[str, Any]) -> BranchingResult:
    values: dict[str, Any] = {name: saved.get(name, math.nan) for name in _of_type(BranchingResult, "float")}
    values |= {name: saved.get(name, 0) for name in _of_type(BranchingResult, "int")}
    return BranchingResult(by_rule={rule: saved[f"by_{rule}"] for rule in CHOICES if f"by_{rule}" in saved}, **values)


def _of_type(kind: type[LevelResult | BranchingResult], name: str) -> list[str]:
    """Fields of a class whose annotation, which is a string here, is this one."""
    return [each.name for each in fields(kind) if each.type == name]


def development(result: LevelResult) -> dict[str, float]:
    """What a row of metrics.jsonl says of an evaluation on the development slice."""
    return {f"dev_{name}": getattr(result, name) for name in DEVELOPMENT}


# -- from episodes ------------------------------------------------------------------------------------------------------


def summary(tasks: Sequence[Task], trees: Sequence[Tree], spent: Spent, failures: Sequence[str]) -> LevelResult:
    """The numbers of an evaluation from its trajectories, one a task; trees that failed count as not solved."""
    played = Played(failures=list(failures))
    played.add(tasks, 0, [episode(tree, 0) for tree in trees], spent)
    return conclude(tasks, played)


def conclude(tasks: Sequence[Task], played: Played, *, samples: int = 1, pass_at: Sequence[int] = ()) -> LevelResult:
    """The numbers of an evaluation: every task exactly `samples` times, those that failed as not solved.

    Args:
        tasks: what was asked.
        played: the episodes; those of other tasks and samples are left out.
        samples: episodes of each task.
        pass_at: values of k for Pass@k.
    """
    asked = [(task, sample) for sample in range(samples) for task in tasks]
    there = [played.episodes.get((task.id, sample)) for task, sample in asked]
    found = [one for one in there if one is not None]
    wins = {task.id: 0 for task in tasks}
    for one in found:
        wins[one.task] += one.success
    low, high = clustered(list(wins.values()), samples)
    total, spent = max(len(asked), 1), played.spent
    won = [one.steps for one in found if one.success]
    counts = Counter[str](dict.fromkeys(step_counts([]), 0))
    for one in found:
        counts.update(one.counts)
    return LevelResult(
        success=sum(wins.values()) / total,
        low=low,
        high=high,
        wins=sum(wins.values()),
        tasks=len(tasks),
        samples=samples,
        episodes=len(asked),
        score=sum(one.score for one in found) / total,
        steps=statistics.fmean(one.steps for one in found) if found else 0.0,
        steps_won=statistics.fmean(won) if won else 0.0,
        **ratios(counts),
        tokens=spent.generated / total,
        env_steps=(spent.env_steps + spent.replayed) / total,
        prefilled=spent.prefilled,
        reused=spent.reused,
        discarded=spent.discarded,
        failed=len(asked) - len(found),
        failures=tuple(played.failures),
        kinds=_kinds(asked, found),
        averages=_averages(asked, found),
        pass_at=_pass_at(wins, samples, pass_at),
        branching=_branching(found, total) if any(one.grown for one in found) else None,
    )


def _kinds(asked: Sequence[tuple[Task, int]], found: Sequence[Episode]) -> dict[str, KindResult]:
    """Wins and episodes by task type."""
    kind = {task.id: task.kind for task, _ in asked}
    played = Counter(task.kind for task, _ in asked)
    won = Counter(kind[one.task] for one in found if one.success)
    return {name: KindResult(won[name], played[name]) for name in sorted(played)}


def _averages(asked: Sequence[tuple[Task, int]], found: Sequence[Episode]) -> dict[str, Mean]:
    """Means over tasks, and over types, of what the episodes came to; one that is missing came to nothing."""
    kind = {task.id: task.kind for task, _ in asked}
    played = Counter(task.kind for task, _ in asked)
    total: defaultdict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(played, 0.0))
    for one in found:
        for measure, value in {"success": float(one.success), **one.progress}.items():
            total[measure][kind[one.task]] += value
    return {
        measure: Mean(
            tasks=sum(by_kind.values()) / len(asked),
            types=statistics.fmean(by_kind[name] / played[name] for name in played),
        )
        for measure, by_kind in total.items()
    }


def _pass_at(wins: Mapping[str, int], samples: int, wanted: Sequence[int]) -> dict[str, float]:
    """Mean over tasks of the unbiased Pass@k."""
    return {str(k): statistics.fmean(pass_at(k, samples, won) for won in wins.values()) for k in wanted if wins}


def _branching(found: Sequence[Episode], total: int) -> BranchingResult:
    """What choosing brought, beside the trajectory without branching; an episode that failed was solved by neither."""
    grown = [one.grown for one in found]
    names = {rule: f"by_{rule}" for rule in CHOICES}
    return BranchingResult(
        leaves=sum(tree["leaves"] for tree in grown) / total,
        by_rule={
            rule: sum(tree[name] for tree in grown) / total
            for rule, name in names.items()
            if all(name in tree for tree in grown)
        },
        alone=sum(tree["alone"] for tree in grown) / total,
        gained=sum(one.success and not one.grown["alone"] for one in found),
        lost=sum(not one.success and bool(one.grown["alone"]) for one in found),
        pass_at_leaves=sum(tree["best"] for tree in grown) / total,
        alone_tokens=sum(tree["alone_tokens"] for tree in grown) / total,
        alone_steps=sum(tree["alone_steps"] for tree in grown) / total,
    )
