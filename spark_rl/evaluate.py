"""Evaluation: every task of a level exactly once, numerator and denominator told (design rule 7).

A task whose environment fails counts as not solved, and is reported; it is never left out of the denominator.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from spark_rl.branching.chains import Chains
from spark_rl.environments.base import World
from spark_rl.errors import EnvironmentFailure
from spark_rl.growth import Growth, Sampling, TreeShape
from spark_rl.metrics import step_ratios, wilson
from spark_rl.policies.base import Policy
from spark_rl.rollout import grow_forest
from spark_rl.types import Forest, Spent, Task, Tree

__all__ = ["Grows", "WithPolicy", "averages", "by_kind", "chains", "evaluate", "markdown", "summary"]

Result = dict[str, Any]


class Grows(Protocol):
    """What evaluation needs of an executor."""

    async def grow(self, tasks: Sequence[Task], growth: Growth, *, seed: int, iteration: int) -> Forest:
        """One tree for each task."""
        ...


class WithPolicy:
    """Grows trees with a policy that reads text: a server, an expert, a person."""

    def __init__(self, policy: Policy, world: World) -> None:
        self.policy, self.world = policy, world

    async def grow(self, tasks: Sequence[Task], growth: Growth, *, seed: int, iteration: int) -> Forest:
        """One tree for each task."""
        return await grow_forest(tasks, self.world, self.policy, growth, seed=seed, iteration=iteration)


def chains(growth: Growth, temperature: float) -> Growth:
    """How evaluation plays: one trajectory a task, at its own temperature, otherwise as in training."""
    shape = TreeShape(budget=1, roots=1, horizon=growth.shape.horizon)
    return Growth(shape, Chains(), growth.prompt, Sampling(temperature, growth.sampling.max_tokens))


async def evaluate(
    executor: Grows,
    tasks: Sequence[Task],
    growth: Growth,
    *,
    temperature: float,
    seed: int,
    batch: int = 64,
    advance: Callable[[int], None] = lambda _: None,
) -> Result:
    """Play each task once.

    Args:
        executor: grows the trajectories.
        tasks: what is asked; each exactly once.
        growth: the recipe's growth; its prompt, horizon and token limit are used, its branching is not.
        temperature: of sampling; 0 is greedy.
        seed: of the samples.
        batch: tasks played at once.
        advance: told how many tasks are done.

    Returns:
        success with its 95 % interval (`low`, `high`), `wins` and `tasks`; `steps` and `steps_won`; the shares of
        `metrics.step_ratios`; `score` (mean return); tokens spent; `failed`; `kinds`: wins and tasks by task type;
        `averages`: success, and each measure of progress at the end, over `tasks` alike and over `types` alike.

    Raises:
        EnvironmentFailure: the environment failed in every task.
    """
    alone = chains(growth, temperature)
    trees: list[Tree] = []
    spent, failures = Spent(), list[str]()
    for first in range(0, len(tasks), batch):
        try:
            forest = await executor.grow(tasks[first : first + batch], alone, seed=seed, iteration=0)
        except EnvironmentFailure as error:  # in every task of this batch
            if len(tasks) <= batch:
                raise
            failures.append(str(error))
        else:
            trees += forest.trees
            spent += forest.spent
            failures += forest.failures
        advance(min(first + batch, len(tasks)))
    if tasks and not trees:
        raise EnvironmentFailure(f"the environment failed in all of {len(tasks)} tasks; the first: {failures[0]}")
    return summary(tasks, trees, spent, failures)


def summary(tasks: Sequence[Task], trees: Sequence[Tree], spent: Spent, failures: Sequence[str]) -> Result:
    """The numbers of an evaluation from its trajectories; trees that failed count as not solved."""
    lasts = [tree.nodes[-1] for tree in trees]
    wins = sum(last.success for last in lasts)
    low, high = wilson(wins, len(tasks))
    kinds: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for task in tasks:
        kinds[task.kind][1] += 1
    for tree in trees:
        kinds[tree.task.kind][0] += tree.nodes[-1].success
    won = [last.depth for last in lasts if last.success]
    return {
        "success": wins / len(tasks) if tasks else 0.0,
        "low": low,
        "high": high,
        "wins": wins,
        "tasks": len(tasks),
        "score": sum(sum(tree.returns()) for tree in trees) / max(len(tasks), 1),
        "steps": statistics.fmean(last.depth for last in lasts) if lasts else 0.0,
        "steps_won": statistics.fmean(won) if won else 0.0,
        **step_ratios(trees),
        "tokens": spent.generated / max(len(tasks), 1),
        "prefilled": spent.prefilled,
        "reused": spent.reused,
        "failed": len(tasks) - len(trees),
        "failures": list(failures),
        "kinds": {kind: {"wins": pair[0], "tasks": pair[1]} for kind, pair in sorted(kinds.items())},
        "averages": _averages({kind: pair[1] for kind, pair in kinds.items()}, trees),
    }


def _averages(tasks: Mapping[str, int], trees: Sequence[Tree]) -> dict[str, dict[str, float]]:
    """Means over tasks, and over types, of what the trajectories came to; a tree that is missing came to nothing.

    Args:
        tasks: how many there are of each type.
        trees: what was played.
    """
    total: defaultdict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(tasks, 0.0))
    for tree in trees:
        last = tree.nodes[-1]
        for measure, value in {"success": float(last.success), **last.progress}.items():
            total[measure][tree.task.kind] += value
    return {
        measure: {
            "tasks": sum(by_kind.values()) / sum(tasks.values()),
            "types": statistics.fmean(by_kind[kind] / tasks[kind] for kind in tasks),
        }
        for measure, by_kind in total.items()
    }


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table, one row a level."""
    head = "| level | success | 95 % interval | wins | steps | invalid | repeated | explore | tokens |"
    rows = [
        f"| {level} | {r['success']:.3f} | {r['low']:.3f} to {r['high']:.3f} | {r['wins']}/{r['tasks']} | {r['steps']:.1f} "
        f"| {r['invalid_ratio']:.3f} | {r['repetitive_ratio']:.3f} | {r['explore_ratio']:.3f} | {r['tokens']:.0f} |"
        for level, r in results.items()
    ]
    return "\n".join([head, "|---" * 9 + "|", *rows])


def by_kind(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of wins by task type, a column a level; empty where no level has two types."""
    if all(len(result["kinds"]) < 2 for result in results.values()):
        return ""
    rows = [f"| type | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    for kind in sorted({kind for result in results.values() for kind in result["kinds"]}):
        cells = (_fraction(result["kinds"].get(kind)) for result in results.values())
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def averages(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of means, over tasks and over types; empty where no level has two types or a measure besides success."""
    if all(len(result["kinds"]) < 2 and len(result["averages"]) < 2 for result in results.values()):
        return ""
    rows = [f"| mean | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    for measure in dict.fromkeys(name for result in results.values() for name in result["averages"]):
        for over in ("tasks", "types"):
            found = (result["averages"].get(measure) for result in results.values())
            cells = ("" if mean is None else f"{mean[over]:.3f}" for mean in found)
            rows.append(f"| {measure}, over {over} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _fraction(pair: Mapping[str, int] | None) -> str:
    return "" if pair is None else f"{pair['wins']}/{pair['tasks']}"
