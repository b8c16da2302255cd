"""Evaluation: every task of a level exactly once, or exactly as many times as was asked, numerator and denominator told.

A task whose environment fails counts as not solved, and is reported; it is never left out of the denominator.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spark_rl.episodes import Episode, Played, Shard, episode
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.growth import Growth
from spark_rl.lookahead import CHOICES, Choose, ahead
from spark_rl.metrics import clustered, pass_at, ratios, step_counts
from spark_rl.playing import Grows, chains
from spark_rl.recipe import Recipe
from spark_rl.seeding import derive
from spark_rl.types import Forest, Spent, Task, Tree

__all__ = [
    "averages",
    "branching",
    "by_kind",
    "conclude",
    "evaluate",
    "markdown",
    "measure",
    "play",
    "report",
    "summary",
]

Result = dict[str, Any]


async def evaluate(executor: Grows, tasks: Sequence[Task], growth: Growth, **settings: Any) -> Result:
    """Play each task of a level `samples` times; takes what `play` takes.

    Returns:
        What `conclude` returns.

    Raises:
        EnvironmentFailure: the environment failed in every episode.
    """
    played = await play(executor, tasks, growth, **settings)
    return conclude(tasks, played, samples=settings.get("samples", 1))


async def measure(
    executor: Grows, recipe: Recipe, tasks: Sequence[Task], advance: Callable[[int], None] = lambda _: None
) -> Result:
    """Play each task once, as a run of the recipe evaluates itself; returns and raises what `evaluate` does."""
    settings = recipe.evaluation
    return await evaluate(
        executor,
        tasks,
        recipe.growth,
        temperature=settings.temperature,
        seed=derive(recipe.seed, "evaluation"),
        batch=settings.batch,
        advance=advance,
    )


async def play(
    executor: Grows,
    tasks: Sequence[Task],
    growth: Growth,
    *,
    temperature: float,
    seed: int,
    samples: int = 1,
    batch: int = 64,
    choose: Choose | None = None,
    played: Played | None = None,
    shard: Shard | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Played:
    """Play what has not been played yet.

    A batch is up to `batch` tasks in order, each once, under one sample number, from which with `seed` and the task the
    randomness of the sample comes. A shard takes whole batches, so that what it plays is what would be played without.

    Args:
        executor: grows the trajectories.
        tasks: what is asked; each exactly `samples` times.
        growth: the recipe's growth; its prompt, horizon and token limit are used, its branching where there is a choice.
        temperature: of sampling; 0 is greedy.
        seed: of the samples.
        samples: episodes of each task.
        batch: tasks played at once.
        choose: which leaf of a tree counts; None plays one trajectory and nothing else.
        played: what is there already, which is added to.
        shard: the share of the batches that is played here; None: all.
        advance: told how many episodes are done.

    Raises:
        EnvironmentFailure: the environment failed in all that was played.
    """
    if len({task.id for task in tasks}) < len(tasks):
        raise UsageError("the world names a task twice in one split: each must be there once")
    how = ahead(growth, temperature) if choose else chains(growth, temperature)
    played = Played() if played is None else played
    parts = [(sample, tasks[i : i + batch]) for sample in range(samples) for i in range(0, len(tasks), batch)]
    done = tried = 0
    for index, (sample, part) in enumerate(parts):
        if played.holds(part, sample):
            done += len(part)
        elif shard is None or shard.holds(index):
            try:
                forest = await executor.grow(part, how, seed=seed, iteration=sample)
            except EnvironmentFailure as error:  # in every task of this batch
                forest = Forest([], failures=[str(error)])
            _keep(played, part, sample, forest, choose)
            done, tried = done + len(part), tried + len(part)
            advance(done)
    if tried and not played.episodes:
        raise EnvironmentFailure(f"the environment failed in all of {tried} episodes; the first: {played.failures[0]}")
    return played


def _keep(played: Played, part: Sequence[Task], sample: int, forest: Forest, choose: Choose | None) -> None:
    """Add what a batch came to, having checked that it is what was asked for."""
    found = [episode(tree, sample, choose) for tree in forest]
    ids = [one.task for one in found]
    assert set(ids) <= {task.id for task in part}, "no other task was played"
    assert len(set(ids)) == len(ids), "each task was played once"
    played.failures += forest.failures
    if found:
        played.add(part, sample, found, forest.spent)


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


_RULES = {f"by_{rule}": f"by {rule}" for rule in CHOICES}
"""Of an episode's tree, and in words."""


def _branching(found: Sequence[Episode], total: int) -> dict[str, float]:
    """What choosing brought, beside the trajectory without branching; an episode that failed was solved by neither."""
    grown = [one.grown for one in found]
    return {
        "leaves": sum(tree["leaves"] for tree in grown) / total,
        **{name: sum(tree[name] for tree in grown) / total for name in _RULES if all(name in tree for tree in grown)},
        "alone": sum(tree["alone"] for tree in grown) / total,
        "gained": sum(one.success and not one.grown["alone"] for one in found),
        "lost": sum(not one.success and bool(one.grown["alone"]) for one in found),
        "pass_at_leaves": sum(tree["best"] for tree in grown) / total,
        "alone_tokens": sum(tree["alone_tokens"] for tree in grown) / total,
        "alone_steps": sum(tree["alone_steps"] for tree in grown) / total,
    }


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table, one row a level."""
    shares = {"invalid": "invalid_ratio", "repeated": "repetitive_ratio", "explore": "explore_ratio"}
    wanted = list(dict.fromkeys(k for r in results.values() for k in r.get("pass_at", {})))
    head = ["level", "success", "95 % interval", "wins", "score", "steps", *shares, "tokens", *(f"Pass@{k}" for k in wanted)]
    rows = [
        [
            level,
            f"{r['success']:.3f}",
            f"{r['low']:.3f} to {r['high']:.3f}",
            f"{r['wins']}/{r['episodes']}",
            f"{r['score']:.3f}",
            f"{r['steps']:.1f}",
            *(f"{r[name]:.3f}" for name in shares.values()),
            f"{r['tokens']:.0f}",
            *(f"{r['pass_at'][k]:.3f}" for k in wanted),
        ]
        for level, r in results.items()
    ]
    return _table(head, rows)


def branching(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of what choosing brought and cost, one row a level; empty where nothing was chosen.

    The trees answer for all rules, so that success by each stands beside what was chosen. `alone` is the trajectory without
    branching, from the same samples. Pass@leaves counts a task as solved where any leaf is: it looks at outcomes, and is no
    success.
    """
    chosen = {level: r for level, r in results.items() if "branching" in r}
    if not chosen:
        return ""
    rules = {name: said for name, said in _RULES.items() if all(name in r["branching"] for r in chosen.values())}
    head = ["level", "chosen", "alone", "gained", "lost", *rules.values(), "Pass@leaves", "leaves"]
    head += ["tokens", "alone", "environment steps", "alone"]
    rows = [
        [
            level,
            *(f"{value:.3f}" for value in (r["success"], b["alone"])),
            *(f"{b[name]}" for name in ("gained", "lost")),
            *(f"{b[name]:.3f}" for name in rules),
            f"{b['pass_at_leaves']:.3f}",
            f"{b['leaves']:.1f}",
            *(f"{value:.0f}" for value in (r["tokens"], b["alone_tokens"])),
            *(f"{value:.1f}" for value in (r["env_steps"], b["alone_steps"])),
        ]
        for level, r in chosen.items()
        for b in (r["branching"],)
    ]
    return _table(head, rows)


def report(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables, in Markdown."""
    return "\n\n".join(filter(None, (f(results) for f in (markdown, branching, averages, by_kind))))


def by_kind(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of wins by task type, a column a level; empty where no level has two types."""
    if all(len(result["kinds"]) < 2 for result in results.values()):
        return ""
    kinds = sorted({kind for result in results.values() for kind in result["kinds"]})
    rows = [[kind, *(_fraction(result["kinds"].get(kind)) for result in results.values())] for kind in kinds]
    return _table(["type", *results], rows)


def averages(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of means, over tasks and over types; empty where no level has two types or a measure besides success."""
    if all(len(result["kinds"]) < 2 and len(result["averages"]) < 2 for result in results.values()):
        return ""
    rows: list[list[str]] = []
    for measure in dict.fromkeys(name for result in results.values() for name in result["averages"]):
        for over in ("tasks", "types"):
            found = (result["averages"].get(measure) for result in results.values())
            rows.append([f"{measure}, over {over}", *("" if mean is None else f"{mean[over]:.3f}" for mean in found)])
    return _table(["mean", *results], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _fraction(pair: Mapping[str, int] | None) -> str:
    return "" if pair is None else f"{pair['wins']}/{pair['tasks']}"
