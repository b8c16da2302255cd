"""The numbers of an evaluation, from its episodes.

A task whose environment failed counts as not solved, and is reported; it is never left out of the denominator.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from spark_rl.evaluation.episodes import Episode, Played, episode
from spark_rl.evaluation.lookahead import CHOICES
from spark_rl.evaluation.statistics import clustered, pass_at
from spark_rl.rollout.metrics import ratios, step_counts
from spark_rl.types import Spent, Task, Tree

__all__ = ["RULES", "Result", "conclude", "summary"]

Result = dict[str, Any]

RULES = {f"by_{rule}": f"by {rule}" for rule in CHOICES}
"""Of an episode's tree, and in words."""


def summary(tasks: Sequence[Task], trees: Sequence[Tree], spent: Spent, failures: Sequence[str]) -> Result:
    """The numbers of an evaluation from its trajectories, one a task; trees that failed count as not solved."""
    played = Played(failures=list(failures))
    played.add(tasks, 0, [episode(tree, 0) for tree in trees], spent)
    return conclude(tasks, played)


def conclude(tasks: Sequence[Task], played: Played, *, samples: int = 1, pass_at: Sequence[int] = ()) -> Result:
    """The numbers of an evaluation: every task exactly `samples` times, those that failed as not solved.

    Args:
        tasks: what was asked.
        played: the episodes; those of other tasks and samples are left out.
        samples: episodes of each task.
        pass_at: values of k for Pass@k.

    Returns:
        `success` with its 95 % interval (`low`, `high`; `metrics.clustered`), `wins` of `episodes` on `tasks`, `samples`;
        `steps` and `steps_won`; the shares of `metrics.ratios`; `score` (mean return); `tokens` and `env_steps` of an
        episode, all that was tried included; `failed`; `kinds`: wins and episodes by task type; `averages`: success, and
        each measure of progress at the end, over `tasks` alike and over `types` alike; `pass_at` by k; `branching`, where
        there was a choice.
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
    return {
        "success": sum(wins.values()) / total,
        "low": low,
        "high": high,
        "wins": sum(wins.values()),
        "tasks": len(tasks),
        "samples": samples,
        "episodes": len(asked),
        "score": sum(one.score for one in found) / total,
        "steps": statistics.fmean(one.steps for one in found) if found else 0.0,
        "steps_won": statistics.fmean(won) if won else 0.0,
        **ratios(counts),
        "tokens": spent.generated / total,
        "env_steps": (spent.env_steps + spent.replayed) / total,
        "prefilled": spent.prefilled,
        "reused": spent.reused,
        "discarded": spent.discarded,
        "failed": len(asked) - len(found),
        "failures": played.failures,
        "kinds": _kinds(asked, found),
        "averages": _averages(asked, found),
        **({"pass_at": _pass_at(wins, samples, pass_at)} if pass_at else {}),
        **({"branching": _branching(found, total)} if any(one.grown for one in found) else {}),
    }


def _kinds(asked: Sequence[tuple[Task, int]], found: Sequence[Episode]) -> dict[str, dict[str, int]]:
    """Wins and episodes by task type."""
    kind = {task.id: task.kind for task, _ in asked}
    played = Counter(task.kind for task, _ in asked)
    won = Counter(kind[one.task] for one in found if one.success)
    return {name: {"wins": won[name], "tasks": played[name]} for name in sorted(played)}


def _averages(asked: Sequence[tuple[Task, int]], found: Sequence[Episode]) -> dict[str, dict[str, float]]:
    """Means over tasks, and over types, of what the episodes came to; one that is missing came to nothing."""
    kind = {task.id: task.kind for task, _ in asked}
    played = Counter(task.kind for task, _ in asked)
    total: defaultdict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(played, 0.0))
    for one in found:
        for measure, value in {"success": float(one.success), **one.progress}.items():
            total[measure][kind[one.task]] += value
    return {
        measure: {
            "tasks": sum(by_kind.values()) / len(asked),
            "types": statistics.fmean(by_kind[name] / played[name] for name in played),
        }
        for measure, by_kind in total.items()
    }


def _pass_at(wins: Mapping[str, int], samples: int, wanted: Sequence[int]) -> dict[str, float]:
    """Mean over tasks of the unbiased Pass@k."""
    return {str(k): statistics.fmean(pass_at(k, samples, won) for won in wins.values()) for k in wanted if wins}


def _branching(found: Sequence[Episode], total: int) -> dict[str, float]:
    """What choosing brought, beside the trajectory without branching; an episode that failed was solved by neither."""
    grown = [one.grown for one in found]
    return {
        "leaves": sum(tree["leaves"] for tree in grown) / total,
        **{name: sum(tree[name] for tree in grown) / total for name in RULES if all(name in tree for tree in grown)},
        "alone": sum(tree["alone"] for tree in grown) / total,
        "gained": sum(one.success and not one.grown["alone"] for one in found),
        "lost": sum(not one.success and bool(one.grown["alone"]) for one in found),
        "pass_at_leaves": sum(tree["best"] for tree in grown) / total,
        "alone_tokens": sum(tree["alone_tokens"] for tree in grown) / total,
        "alone_steps": sum(tree["alone_steps"] for tree in grown) / total,
    }
