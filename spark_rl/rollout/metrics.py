"""Metrics of a forest: pure functions. `common.metrics` declares the name of each metric for logs, reports and tables.

Ratios of steps are over *unique* nodes; success, return and length are over trajectories. A repeated action is one that was
taken earlier on the same trajectory at the same state key.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from spark_rl.types import Forest, Fork, Tree

__all__ = [
    "coverage_gain",
    "explored",
    "fork_depths",
    "ratios",
    "repeated",
    "step_counts",
    "step_ratios",
    "summarise",
]

INTERVAL = 5
"""Steps of an interval in histograms over depth (the paper's Table 9)."""


def repeated(tree: Tree) -> list[bool]:
    """For each node: was the same action taken at the same state key earlier on its trajectory?"""
    seen: list[frozenset[tuple[str, str]]] = []
    result: list[bool] = []
    for node in tree.nodes:
        above = seen[node.parent] if node.parent >= 0 else frozenset[tuple[str, str]]()
        pair = (node.state_key, node.action)
        result.append(pair in above)
        seen.append(above if pair in above else above | {pair})
    return result


def fork_depths(forest: Forest) -> list[int]:
    """Depth of the step at which each granted continuation was opened (0: a new root)."""
    return [
        0 if fork.node is None else tree.nodes[fork.node].depth
        for tree in forest
        for fork in tree.forks
        for _ in range(fork.extra)
    ]


def step_counts(trees: Sequence[Tree]) -> dict[str, int]:
    """Unique steps, and how many of them are in explore mode, malformed, inadmissible (though well-formed), and so on."""
    nodes = [node for tree in trees for node in tree.nodes]
    return {
        "nodes": len(nodes),
        "explore": sum(node.mode == "explore" for node in nodes),
        "malformed": sum(not node.well_formed for node in nodes),
        "inadmissible": sum(node.well_formed and not node.admissible for node in nodes),
        "repetitive": sum(sum(repeated(tree)) for tree in trees),
        "truncated": sum(node.truncated > 0 for node in nodes),
        "empty": sum(not node.text.strip() for node in nodes),
    }


def ratios(counts: Mapping[str, int]) -> dict[str, float]:
    """Shares of the steps that `step_counts` counted; invalid is malformed or inadmissible."""
    total = max(counts["nodes"], 1)
    shares = {f"{name}_ratio": counts[name] / total for name in ("explore", "malformed", "inadmissible")}
    shares["invalid_ratio"] = (counts["malformed"] + counts["inadmissible"]) / total
    return shares | {f"{name}_ratio": counts[name] / total for name in ("repetitive", "truncated", "empty")}


def step_ratios(trees: Sequence[Tree]) -> dict[str, float]:
    """Shares of unique steps: explore mode, malformed, inadmissible (well-formed), invalid (either), repeated action."""
    return ratios(step_counts(trees))


def coverage_gain(forest: Forest) -> float:
    """Share of the granted continuations at whose fork the siblings' mean returns differ (mean over the leaves below).

    Only such a fork adds information to its parent's outcome. The siblings of a new root are the roots. 0 without forks.
    """
    informative = granted = 0
    for tree in forest:
        if not tree.forks:
            continue
        worth, children = _mean_returns(tree), tree.children()
        for fork in tree.forks:
            ends = {worth[child] for child in children[_point(tree, fork)]}
            informative += fork.extra * (len(ends) > 1)
            granted += fork.extra
    return informative / granted if granted else 0.0


def _point(tree: Tree, fork: Fork) -> int:
    """The node below which a fork's siblings stand; -1 for the roots."""
    if fork.node is None:
        return -1
    return fork.node if fork.at == "after" else tree.nodes[fork.node].parent


def _mean_returns(tree: Tree) -> list[float]:
    """For each node, the mean return of the trajectories through it."""
    total = [0.0] * len(tree.nodes)
    for leaf, value in zip(tree.leaves(), tree.returns(), strict=True):
        total[leaf] = value
    for index in range(len(tree.nodes) - 1, -1, -1):
        if (parent := tree.nodes[index].parent) >= 0:
            total[parent] += total[index]
    return [value / count for value, count in zip(total, tree.leaves_below(), strict=True)]


def _interval(depth: int) -> str:
    """`1_5`, `6_10`, ...: the interval of steps that a depth lies in; `0` for new roots."""
    last = -(-depth // INTERVAL) * INTERVAL
    return f"{last - INTERVAL + 1}_{last}" if depth else "0"


def _by_interval(forest: Forest, depths: Sequence[int]) -> dict[str, float]:
    """Share of the forks opened, and of the unique steps in explore mode, by interval; only intervals that were reached."""
    forks, intervals = Counter(map(_interval, depths)), explored(forest)
    return {
        **{f"fork_depth_{name}": forks[name] / max(len(depths), 1) for name in ("0", *intervals)},
        **{f"explore_ratio_{name}": exploring / steps for name, (exploring, steps) in intervals.items()},
    }


def explored(trees: Iterable[Tree]) -> dict[str, tuple[int, int]]:
    """Unique steps in explore mode, and all unique steps, by interval of steps (the paper's Table 9)."""
    counts: dict[str, tuple[int, int]] = {}
    for tree in trees:
        for node in tree.nodes:
            exploring, steps = counts.get(name := _interval(node.depth), (0, 0))
            counts[name] = exploring + (node.mode == "explore"), steps + 1
    return counts


def summarise(forest: Forest, budget: int = 0) -> dict[str, float]:
    """The numbers of one iteration's rollout; counters as in `Spent`, seconds by phase.

    Args:
        forest: the forest of the iteration.
        budget: leaves that a tree may have on average; 0 leaves out `budget_used`.
    """
    trees = forest.trees
    leaves = [tree.nodes[leaf] for tree in trees for leaf in tree.leaves()]
    returns = [tree.returns() for tree in trees]
    depths = fork_depths(forest)
    unique = sum(len(tree.nodes) for tree in trees)
    row: dict[str, float] = {
        "success": statistics.fmean(leaf.success for leaf in leaves),
        "reward": statistics.fmean(value for group in returns for value in group),
        "steps": statistics.fmean(leaf.depth for leaf in leaves),
        "trees": len(trees),
        "leaves": len(leaves) / len(trees),
        **({"budget_used": statistics.fmean(tree.opened for tree in trees) / budget} if budget else {}),
        "unique_steps": unique,
        "duplicated_over_unique": sum(leaf.depth for leaf in leaves) / max(unique, 1),
        "zero_signal_groups": statistics.fmean(min(group) == max(group) for group in returns),
        "forks": len(depths),
        "fork_depth": statistics.fmean(depths) if depths else 0.0,
        **_by_interval(forest, depths),
        "coverage_gain": coverage_gain(forest),
        "same_action_siblings": _same_action_siblings(trees),
        "completion_tokens": statistics.fmean(len(node.completion) for tree in trees for node in tree.nodes),
        "prompt_tokens": statistics.fmean(len(node.prompt) for tree in trees for node in tree.nodes),
        **step_ratios(trees),
        **{name: float(count) for name, count in forest.spent.counts().items()},
        "cache_hits": forest.spent.reused / max(forest.spent.reused + forest.spent.prefilled, 1),
        **{f"seconds_{phase}": seconds for phase, seconds in forest.spent.seconds.items()},
    }
    return row


def _same_action_siblings(trees: Sequence[Tree]) -> float:
    """Share of sibling pairs below a fork that took the same action; 0 without forks."""
    same = pairs = 0
    for tree in trees:
        for group in tree.children()[:-1]:
            counts = Counter(tree.nodes[child].action for child in group)
            pairs += math.comb(len(group), 2)
            same += sum(math.comb(count, 2) for count in counts.values())
    return same / pairs if pairs else 0.0
