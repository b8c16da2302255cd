"""The trees, curves and tables of a run, drawn in a terminal.

Invariants
----------
* Text from a model or an environment is data: markup and control characters in the text have no effect.
* All output is readable in monochrome and in 80 columns: symbols carry the meaning, colours repeat the meaning.

Functions return rich renderables (or plain text). They read values and run directories and change nothing.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree as RichTree

from spark_rl.common.metrics import SUMMARY
from spark_rl.common.progress import duration
from spark_rl.config.recipe import Recipe
from spark_rl.evaluation.results import Levels
from spark_rl.evaluation.statistics import wilson
from spark_rl.report.reading import Reading
from spark_rl.rollout.metrics import summarise
from spark_rl.types import Forest, Node, Tree

__all__ = [
    "choose_tree",
    "clean",
    "draw_tree",
    "evaluation_table",
    "forest_summary",
    "kinds_table",
    "leaf_advantages",
    "sparkline",
    "summary",
]

FORK, WON, LOST = "⑂", "✓", "✗"
SHOWN_STEPS = 3
"""Most steps without a fork that are shown in full; of a longer stretch only the first and last steps are shown."""


def clean(text: str, most: int = 200) -> str:
    """The text as one safe line of at most `most` characters: single spaces, and `�` for unprintable characters."""
    line = "".join(char if char.isprintable() else "�" for char in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


# -- trees ----------------------------------------------------------------------------------------------------------


def leaf_advantages(tree: Tree, recipe: Recipe) -> list[float]:
    """Advantage of each trajectory under the recipe's estimator, in the order of `tree.leaves()`."""
    credit = recipe.advantage(recipe.rewards.shape(tree))
    return [credit.positive[leaf] + credit.negative[leaf] for leaf in tree.leaves()]


def choose_tree(forest: Forest) -> int:
    """Index of the most instructive tree: mixed outcomes and forks first, then few steps."""

    def interest(index: int) -> tuple[bool, bool, int]:
        tree = forest.trees[index]
        return len(set(tree.returns())) > 1, bool(tree.forks), -len(tree.nodes)

    return max(range(len(forest)), key=interest)


def draw_tree(tree: Tree, advantages: Sequence[float] | None = None) -> RenderableType:
    """A drawing of a tree: forks with their reasons, outcomes and advantages.

    Args:
        tree: the tree.
        advantages: one number for each trajectory, in the order of `tree.leaves()`; None: not shown.
    """
    leaves = tree.leaves()
    wins = sum(tree.nodes[leaf].success for leaf in leaves)
    head = Text(clean(tree.task.instruction), style="bold")
    head.append(f"\n{clean(tree.task.id)}: {len(tree.nodes)} steps, {len(leaves)} leaves, {wins} won", style="not bold dim")
    drawing = _Drawing(tree, dict(zip(leaves, advantages, strict=True)) if advantages is not None else {})
    if -1 in drawing.explorers:
        drawing.append_fork(head, -1)
    root = RichTree(head, guide_style="dim")
    for node in drawing.children[-1]:
        drawing.add(root, node)
    legend = Text(f"{FORK} fork  {WON} won  {LOST} not won" + (", then the advantage" if advantages else ""), style="dim")
    return Group(root, legend)


class _Drawing:
    """The lookup tables for drawing one tree."""

    def __init__(self, tree: Tree, advantages: Mapping[int, float]) -> None:
        self.nodes = tree.nodes
        self.children = tree.children()
        self.advantages = advantages
        self.explorers: dict[int, int] = {}
        for fork in tree.forks:
            if fork.node is not None:
                # A fork at a decision opens siblings of the exploring step, so it is drawn at the end of that step's parent.
                point = fork.node if fork.at == "after" else tree.nodes[fork.node].parent
                self.explorers.setdefault(point, fork.node)

    def add(self, above: RichTree, first: int) -> None:
        """Draw the stretch that starts with a step, then the branches at its end."""
        # An explicit stack: a tree may be as deep as the horizon.
        waiting = [(above, first)]
        while waiting:
            parent, start = waiting.pop()
            stretch = [start]
            while len(below := self.children[stretch[-1]]) == 1:
                stretch.append(below[0])
            branch = parent.add(self._label(stretch))
            waiting += [(branch, child) for child in reversed(below)]

    def _label(self, stretch: Sequence[int]) -> Text:
        last = stretch[-1]
        label = Text() if self.children[last] else self._outcome(last)
        nodes = [self.nodes[index] for index in stretch]
        if len(nodes) <= SHOWN_STEPS:
            _append_actions(label, nodes)
        else:
            _append_actions(label, nodes[:1])
            label.append(f" → … {len(nodes) - 2} steps … → ", style="dim")
            _append_actions(label, nodes[-1:])
        if self.children[last]:
            self.append_fork(label, last)
        return label

    def append_fork(self, label: Text, point: int) -> None:
        """Mark the end of a step (-1: the start) as a fork, with the reason for the fork."""
        label.append(f"\n{FORK}", style="bold magenta")
        if (explorer := self.explorers.get(point)) is not None:
            node = self.nodes[explorer]
            label.append(f" {node.mode or 'no mode'}: {clean(node.reasoning, 120)}", style="italic magenta")

    def _outcome(self, leaf: int) -> Text:
        node = self.nodes[leaf]
        colour = "green" if node.success else "red"
        label = Text().append(WON if node.success else LOST, style=f"bold {colour}")
        if leaf in self.advantages:
            label.append(f" {self.advantages[leaf]:+.2f}", style=colour)
        return label.append(f" {node.depth:>2} steps  ", style="dim")


def _append_actions(label: Text, nodes: Sequence[Node]) -> None:
    for index, node in enumerate(nodes):
        if index:
            label.append(" → ", style="dim")
        label.append(
            clean(node.action, 60) or "(no action)", style="" if node.well_formed and node.admissible else "strike yellow"
        )


# -- tables ---------------------------------------------------------------------------------------------------------


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """A curve in one line of block characters, lowest to highest value; a value that is not a number becomes a space.

    More than `width` values are averaged in groups.
    """
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [statistics.fmean(values[a:b]) for a, b in pairwise(edges)]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = 7 / (high - low) if high > low else 0.0
    return "".join("▁▂▃▄▅▆▇█"[int((value - low) * scale + 0.5)] if math.isfinite(value) else " " for value in values)


def evaluation_table(evaluations: Mapping[str, Levels]) -> Table:
    """Success of each level at each moment (`before`, `after`), with its fraction and 95 % interval."""
    table = Table(title="success on test tasks", title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("level")
    for moment in evaluations:
        table.add_column(moment)
        table.add_column("95 % interval", style="dim")
    for level in sorted({level for results in evaluations.values() for level in results}):
        cells: list[str] = []
        for results in evaluations.values():
            if (result := results.get(level)) is None:
                cells += ["", ""]
            else:
                cells += [
                    f"{result.success:.3f}  {result.wins}/{result.tasks}",
                    f"{result.low:.2f} to {result.high:.2f}",
                ]
        table.add_row(level, *cells)
    return table


def kinds_table(evaluations: Mapping[str, Levels]) -> Table | None:
    """Wins and means by task type: one column for each level, with the moments in order; None if no level has two types.

    Means over types are given for success and for each measure of progress; means over tasks only for the latter.
    """
    wins: dict[str, dict[str, list[str]]] = {}
    means: dict[str, dict[str, list[str]]] = {}
    for results in evaluations.values():
        for level, result in results.items():
            for kind, of_kind in result.kinds.items():
                wins.setdefault(kind, {}).setdefault(level, []).append(f"{of_kind.wins}/{of_kind.tasks}")
            for measure, mean in result.averages.items():
                if measure != "success":  # the table of levels has the mean of success over tasks
                    means.setdefault(f"{measure}, tasks alike", {}).setdefault(level, []).append(f"{mean.tasks:.3f}")
                means.setdefault(f"{measure}, types alike", {}).setdefault(level, []).append(f"{mean.types:.3f}")
    if len(wins) < 2:
        return None
    title = f"won by type, {' → '.join(evaluations)}"
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    levels = sorted({level for row in wins.values() for level in row})
    table.add_column("type", no_wrap=True, min_width=len(title))  # otherwise rich wraps the title to the table's width
    for level in levels:
        table.add_column(level, no_wrap=True)
    for kind, row in [*sorted(wins.items()), *means.items()]:
        table.add_row(clean(kind, 32), *(" → ".join(row.get(level, [])) for level in levels))
    return table


def forest_summary(forest: Forest) -> Table:
    """The numbers of one forest."""
    row = summarise(forest)
    leaves = [tree.nodes[leaf] for tree in forest for leaf in tree.leaves()]
    wins = sum(leaf.success for leaf in leaves)
    low, high = wilson(wins, len(leaves))
    invalid = f"{row['malformed_ratio']:.3f} malformed, {row['inadmissible_ratio']:.3f} inadmissible"
    unshared = f"{row['duplicated_over_unique']:.2f} times as many without sharing"
    lines = {
        "trees": f"{len(forest)}" + (f", {len(forest.failures)} failed" if forest.failures else ""),
        "leaves": f"{len(leaves)}, {row['leaves']:.1f} a tree",
        "success": f"{row['success']:.3f}  {wins}/{len(leaves)}  ({low:.2f} to {high:.2f})",
        "steps": f"{row['unique_steps']:.0f}, {row['steps']:.1f} a trajectory, {unshared}",
        "forks": f"{row['forks']:.0f}" + (f", at step {row['fork_depth']:.1f} on average" if row["forks"] else ""),
        "explore ratio": f"{row['explore_ratio']:.3f}",
        "invalid steps": f"{row['invalid_ratio']:.3f} ({invalid})",
        "repeated actions": f"{row['repetitive_ratio']:.3f}",
        "all alike": f"{row['zero_signal_groups']:.0%} of the trees (no signal)",
        "tokens": _spent(row, "generated", "prefilled", "reused"),
    }
    return _facts(f"forest of iteration {forest.iteration}", lines)


def summary(reading: Reading) -> RenderableType:
    """The overview of a run: settings, progress, success before and after, curves, costs, and problems."""
    seed = "" if reading.seed is None else f"seed {reading.seed}, "
    head = Text(f"{reading.label}", style="bold")
    head.append(f"  {seed}{reading.state}\n{reading.directory}", style="not bold dim")
    parts: list[RenderableType] = [head, *(Text(clean(note, 1000), style="yellow") for note in reading.notes)]
    if reading.evaluations:
        parts += ["", evaluation_table(reading.evaluations)]
        if (kinds := kinds_table(reading.evaluations)) is not None:
            parts += ["", kinds]
    if reading.rows:
        parts += ["", _curves(reading.rows), "", _costs(reading.rows)]
    return Group(*parts)


def _curves(rows: Sequence[Mapping[str, float]]) -> Table:
    table = Table(title="iterations, first to last", title_justify="left", box=None, show_header=False, pad_edge=False)
    for metric in SUMMARY:
        if values := [row[metric.name] for row in rows if metric.name in row]:
            table.add_row(metric.summary, Text(sparkline(values), style="cyan"), f"{values[0]:.3g} → {values[-1]:.3g}")
    return table


def _costs(rows: Sequence[Mapping[str, float]]) -> Table:
    """The cost of the iterations, without the cold start and the evaluations."""
    total: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        for name, value in row.items():
            total[name] += value
    prompt = total["prefilled"] + total["reused"]
    lines = {
        "time": ", ".join([duration(total["seconds"]), *_phases(total)]),
        "tokens": _spent(total, "generated", "prefilled", "trained"),
        "from cache": f"{total['reused'] / prompt:.0%} of {prompt:,.0f} prompt tokens" if prompt else "nothing",
        **({"engine": _engine(total)} if total["queued"] else {}),
        "environment": f"{total['env_steps']:,.0f} steps, "
        + _spent(total, "replayed")
        + f", {total['env_forks']:,.0f} forks",
    }
    return _facts("what the iterations cost", lines)


def _engine(total: Mapping[str, float]) -> str:
    waited = duration(total["queued"] / 1000)
    return _spent(total, "preempted") + f", waits of {waited} in all, {total['restarts']:.0f} processes replaced"


def _spent(row: Mapping[str, float], *names: str) -> str:
    return ", ".join(f"{row[name]:,.0f} {name}" for name in names)


def _phases(total: Mapping[str, float]) -> list[str]:
    prefix = "seconds_"
    return [f"{name.removeprefix(prefix)} {duration(value)}" for name, value in total.items() if name.startswith(prefix)]


def _facts(title: str, lines: Mapping[str, str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in lines.items():
        table.add_row(name, Text(value))
    return table
