"""The numbers of an evaluation: their meaning, their computation from episodes, and their form as JSON.

Invariants
----------
* A task whose environment failed counts as not solved, and is reported; it is never left out of the denominator.
* `LevelResult` is the one description of a result. `to_json` and `from_json` alone convert it for eval.json, results.json
  and the cells of a comparison. A new field of the class is written and read without another line.
* Files of older versions can be read: `from_json` gives a missing field its value.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

from spark_rl.common.jsons import JsonObject
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
"""The fields that a saved result must have for a table of results."""
DEVELOPMENT = ("success", "low", "high", "steps", "invalid_ratio")
"""Fields of the result on the development slice that are in a row of metrics.jsonl, with `dev_` before their names."""


@dataclass(frozen=True)
class KindResult:
    """The result of the episodes of one task type."""

    wins: int
    """Episodes that solved their task."""
    tasks: int
    """Episodes, those whose environment failed included."""


@dataclass(frozen=True)
class Mean:
    """One measure, averaged in two ways."""

    tasks: float
    """Mean over tasks."""
    types: float
    """Mean over task types of the mean over the tasks of a type."""


@dataclass(frozen=True, kw_only=True)
class BranchingResult:
    """The effect of choosing among the leaves of a tree, against the trajectory without branching.

    Means are over all episodes. An episode whose environment failed counts as not solved in both cases.
    """

    leaves: float
    """Leaves of a tree."""
    by_rule: Mapping[str, float]
    """Success of the trajectory that a rule chooses, for each rule of `lookahead.CHOICES` that applies to every tree.

    In JSON each is a number of its own: `by_majority`, `by_likelihood`."""
    alone: float
    """Success of the trajectory without branching."""
    gained: int
    """Episodes that only the chosen trajectory solved."""
    lost: int
    """Episodes that only the trajectory without branching solved."""
    pass_at_leaves: float
    """Share of episodes in which some leaf succeeded. It uses outcomes, so it is not a success rate."""
    alone_tokens: float
    """Tokens sampled along the trajectory without branching."""
    alone_steps: float
    """Steps of the trajectory without branching."""


@dataclass(frozen=True, kw_only=True)
class LevelResult:
    """The result of an evaluation on one level: every task `samples` times, a failed environment as not solved.

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
    """Mean sum of rewards of an episode; an episode whose environment failed has 0."""
    steps: float
    """Mean steps of an episode, without those whose environment failed; 0 if there is none."""
    steps_won: float
    """Mean steps of an episode that solved its task; 0 if there is none."""
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
    """Tokens sampled in an episode, those of all branches included."""
    env_steps: float
    """Environment steps of an episode, those of all branches and replayed ones included."""
    prefilled: int
    """Prompt tokens of the whole evaluation that went through the model."""
    reused: int
    """Prompt tokens of the whole evaluation that came from the cache."""
    discarded: int
    """Tokens of the whole evaluation in completions that were thrown away."""
    failed: int
    """Episodes whose environment failed."""
    failures: tuple[str, ...]
    """A sentence for each environment that failed."""
    kinds: Mapping[str, KindResult]
    """Wins and episodes by task type."""
    averages: Mapping[str, Mean]
    """Means of success, and of each measure of progress at the end of an episode."""
    pass_at: Mapping[str, float] = field(default_factory=dict[str, float])
    """Unbiased Pass@k by k; empty, and not written, without `--pass-at`."""
    branching: BranchingResult | None = None
    """The effect of choosing; None, and not written, where there was no choice."""


Levels = Mapping[str, LevelResult]
"""The results of an evaluation by level."""


# -- as JSON ------------------------------------------------------------------------------------------------------------


def to_json(result: LevelResult) -> JsonObject:
    """The result as a JSON object."""
    saved: JsonObject = asdict(result)
    saved["failures"] = list(result.failures)
    if not result.pass_at:
        del saved["pass_at"]
    if result.branching is None:
        del saved["branching"]
    else:
        saved["branching"] = _branching_to_json(result.branching)
    return saved


def from_json(saved: object, *, needed: Sequence[str] = NEEDED) -> LevelResult:
    """The result of a JSON object. Names that this version does not know are ignored.

    A file of an older version, or a cell of a comparison, lacks some fields. A missing mean or share is NaN, a missing count
    is 0 (one sample of each task), and a missing table is empty.

    Args:
        saved: the JSON value.
        needed: names that must be there.

    Raises:
        StorageError: the value is no result; the sentence gives the reason.
    """
    if not isinstance(saved, dict):
        raise StorageError("a result must be an object")
    entries = cast("dict[str, Any]", saved)
    if missing := [name for name in needed if name not in entries]:
        raise StorageError(f"a result has no {missing[0]}: it was not written by an evaluation, or is damaged")
    try:
        samples = entries.get("samples", 1)
        numbers = {"samples": samples, "episodes": entries.get("tasks", 0) * samples} | entries
        values: dict[str, Any] = {name: float(numbers.get(name, math.nan)) for name in _of_type(LevelResult, "float")}
        values |= {name: int(numbers.get(name, 0)) for name in _of_type(LevelResult, "int")}
        return LevelResult(
            **values,
            failures=tuple(map(str, numbers.get("failures", []))),
            kinds={kind: KindResult(pair["wins"], pair["tasks"]) for kind, pair in numbers.get("kinds", {}).items()},
            averages={
                name: Mean(mean["tasks"], mean.get("types", math.nan)) for name, mean in numbers.get("averages", {}).items()
            },
            pass_at={k: float(share) for k, share in numbers.get("pass_at", {}).items()},
            branching=_branching_from_json(numbers["branching"]) if numbers.get("branching") else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"a result cannot be read ({error!r})") from error


def levels_to_json(results: Levels) -> dict[str, JsonObject]:
    """The results of all levels as JSON objects."""
    return {level: to_json(result) for level, result in results.items()}


def levels_from_json(saved: object, *, needed: Sequence[str] = NEEDED) -> dict[str, LevelResult]:
    """The results of all levels from a JSON value; takes the arguments and raises the errors of `from_json`."""
    if not isinstance(saved, dict):
        raise StorageError("results must be an object with a result a level")
    return {level: from_json(result, needed=needed) for level, result in cast("dict[str, object]", saved).items()}


def _branching_to_json(branching: BranchingResult) -> JsonObject:
    """The same object with `by_rule` as numbers of their own."""
    numbers: JsonObject = {}
    for name, value in asdict(branching).items():
        numbers |= {f"by_{rule}": share for rule, share in value.items()} if name == "by_rule" else {name: value}
    return numbers


def _branching_from_json(saved: Mapping[str, float]) -> BranchingResult:
    values: dict[str, Any] = {name: saved.get(name, math.nan) for name in _of_type(BranchingResult, "float")}
    values |= {name: saved.get(name, 0) for name in _of_type(BranchingResult, "int")}
    return BranchingResult(by_rule={rule: saved[f"by_{rule}"] for rule in CHOICES if f"by_{rule}" in saved}, **values)


def _of_type(kind: type[LevelResult | BranchingResult], name: str) -> list[str]:
    """Names of the fields of a class that have this annotation (annotations are strings here)."""
    return [each.name for each in fields(kind) if each.type == name]


def development(result: LevelResult) -> dict[str, float]:
    """The numbers of an evaluation on the development slice for a row of metrics.jsonl."""
    return {f"dev_{name}": getattr(result, name) for name in DEVELOPMENT}


# -- from episodes ------------------------------------------------------------------------------------------------------


def summary(tasks: Sequence[Task], trees: Sequence[Tree], spent: Spent, failures: Sequence[str]) -> LevelResult:
    """The result of an evaluation with one trajectory for each task; trees that failed count as not solved."""
    played = Played(failures=list(failures))
    played.add(tasks, 0, [episode(tree, 0) for tree in trees], spent)
    return conclude(tasks, played)


def conclude(tasks: Sequence[Task], played: Played, *, samples: int = 1, pass_at: Sequence[int] = ()) -> LevelResult:
    """The result of an evaluation: every task exactly `samples` times, a failed environment as not solved.

    Args:
        tasks: the tasks of the evaluation.
        played: the episodes; those of other tasks and samples are left out.
        samples: episodes of each task.
        pass_at: values of k for Pass@k.
    """
    pairs = [(task, sample) for sample in range(samples) for task in tasks]
    episodes = [one for task, sample in pairs if (one := played.episodes.get((task.id, sample))) is not None]
    wins = {task.id: 0 for task in tasks}
    for one in episodes:
        wins[one.task] += one.success
    low, high = clustered(list(wins.values()), samples)
    total, spent = max(len(pairs), 1), played.spent
    won = [one.steps for one in episodes if one.success]
    counts = Counter[str](dict.fromkeys(step_counts([]), 0))
    for one in episodes:
        counts.update(one.counts)
    return LevelResult(
        success=sum(wins.values()) / total,
        low=low,
        high=high,
        wins=sum(wins.values()),
        tasks=len(tasks),
        samples=samples,
        episodes=len(pairs),
        score=sum(one.score for one in episodes) / total,
        steps=statistics.fmean(one.steps for one in episodes) if episodes else 0.0,
        steps_won=statistics.fmean(won) if won else 0.0,
        **ratios(counts),
        tokens=spent.generated / total,
        env_steps=(spent.env_steps + spent.replayed) / total,
        prefilled=spent.prefilled,
        reused=spent.reused,
        discarded=spent.discarded,
        failed=len(pairs) - len(episodes),
        failures=tuple(played.failures),
        kinds=_kinds(pairs, episodes),
        averages=_averages(pairs, episodes),
        pass_at=_pass_at(wins, samples, pass_at),
        branching=_branching(episodes, total) if any(one.grown for one in episodes) else None,
    )


def _kinds(pairs: Sequence[tuple[Task, int]], episodes: Sequence[Episode]) -> dict[str, KindResult]:
    """Wins and episodes by task type."""
    kind = {task.id: task.kind for task, _ in pairs}
    played = Counter(task.kind for task, _ in pairs)
    won = Counter(kind[one.task] for one in episodes if one.success)
    return {name: KindResult(won[name], played[name]) for name in sorted(played)}


def _averages(pairs: Sequence[tuple[Task, int]], episodes: Sequence[Episode]) -> dict[str, Mean]:
    """Means over tasks, and over types, of success and progress; a missing episode counts as 0."""
    kind = {task.id: task.kind for task, _ in pairs}
    played = Counter(task.kind for task, _ in pairs)
    total: defaultdict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(played, 0.0))
    for one in episodes:
        for measure, value in {"success": float(one.success), **one.progress}.items():
            total[measure][kind[one.task]] += value
    return {
        measure: Mean(
            tasks=sum(by_kind.values()) / len(pairs),
            types=statistics.fmean(by_kind[name] / played[name] for name in played),
        )
        for measure, by_kind in total.items()
    }


def _pass_at(wins: Mapping[str, int], samples: int, wanted: Sequence[int]) -> dict[str, float]:
    """Mean over tasks of the unbiased Pass@k."""
    return {str(k): statistics.fmean(pass_at(k, samples, won) for won in wins.values()) for k in wanted if wins}


def _branching(episodes: Sequence[Episode], total: int) -> BranchingResult:
    """The effect of choosing; an episode whose environment failed counts as not solved in both cases."""
    grown = [one.grown for one in episodes]
    names = {rule: f"by_{rule}" for rule in CHOICES}
    return BranchingResult(
        leaves=sum(tree["leaves"] for tree in grown) / total,
        by_rule={
            rule: sum(tree[name] for tree in grown) / total
            for rule, name in names.items()
            if all(name in tree for tree in grown)
        },
        alone=sum(tree["alone"] for tree in grown) / total,
        gained=sum(one.success and not one.grown["alone"] for one in episodes),
        lost=sum(not one.success and bool(one.grown["alone"]) for one in episodes),
        pass_at_leaves=sum(tree["best"] for tree in grown) / total,
        alone_tokens=sum(tree["alone_tokens"] for tree in grown) / total,
        alone_steps=sum(tree["alone_steps"] for tree in grown) / total,
    )
