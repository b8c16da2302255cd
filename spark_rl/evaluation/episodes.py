"""The episodes of an evaluation: one value each, kept so that an interrupted evaluation goes on.

    DIR/settings.json              what was asked; a folder begun with other settings is refused
    DIR/episodes.jsonl             a line an episode, and a line for what each batch cost
    DIR/episodes.2-of-4.jsonl      the same of one shard; all files together are the evaluation
    DIR/results.json, results.md   the numbers and the tables, once every episode is there

Invariants
----------
* An episode is known by its task and its sample's number, and counts once, whichever files hold it.
* Lines are appended batch by batch and are on disk before the next batch starts. A batch of which some are missing is
  played again whole, in the same company, so that what comes of it is the same; the missing ones are added.
* Episodes whose environment failed are not kept: they are tried again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from spark_rl.common.files import Lines, read_lines, write_json
from spark_rl.config.codec import current
from spark_rl.errors import StorageError, UsageError
from spark_rl.evaluation.lookahead import Choose, alone, along, by_rule
from spark_rl.rollout.metrics import step_counts
from spark_rl.types import Spent, Task, Tree

__all__ = ["Episode", "Folder", "Played", "Shard", "episode", "open_folder"]

FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """Every `count`-th batch, from the `number`-th (from 1)."""

    number: int = 1
    count: int = 1

    @classmethod
    def read(cls, text: str) -> Shard:
        """From `2/4`.

        Raises:
            UsageError: it is none.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UsageError(f"shard is {text}: it must be a number and how many there are, such as 2/4")
        return cls(int(number), int(count))

    @property
    def file(self) -> str:
        """Where its episodes are."""
        return "episodes.jsonl" if self.count == 1 else f"episodes.{self.number}-of-{self.count}.jsonl"

    def holds(self, batch: int) -> bool:
        """Whether a batch (from 0) is one of its own."""
        return batch % self.count == self.number - 1


@dataclass(frozen=True)
class Episode:
    """One trajectory as it is reported."""

    task: str
    sample: int
    success: bool
    score: float
    """Sum of its rewards."""
    steps: int
    counts: Mapping[str, int]
    """`metrics.step_counts` of its steps."""
    progress: Mapping[str, float] = field(default_factory=dict[str, float])
    """How far the task had come at its end."""
    grown: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of the tree it was chosen from: leaves, steps, whether any leaf succeeded (`best`), and success, steps and tokens of
    the trajectory without branching (`alone`, `alone_steps`, `alone_tokens`); success of what each rule would have chosen
    (`by_majority`, `by_likelihood`). Empty when there was nothing to choose."""


def episode(tree: Tree, sample: int, choose: Choose | None = None) -> Episode:
    """The episode that a tree comes to."""
    leaf = choose(tree) if choose else len(tree.nodes) - 1
    path = along(tree, leaf)
    last = tree.nodes[leaf]
    grown: dict[str, int] = {}
    if choose:
        first = along(tree, alone(tree)).nodes
        grown = {
            "leaves": len(tree.leaves()),
            "nodes": len(tree.nodes),
            "best": int(any(tree.nodes[end].success for end in tree.leaves())),
            "alone": int(first[-1].success),
            "alone_steps": len(first),
            "alone_tokens": sum(len(node.completion) for node in first),
            **{f"by_{rule}": int(success) for rule, success in by_rule(tree).items()},
        }
    (score,) = path.returns()
    return Episode(tree.task.id, sample, last.success, score, last.depth, step_counts([path]), dict(last.progress), grown)


@dataclass
class Played:
    """What has been played of one level."""

    episodes: dict[tuple[str, int], Episode] = field(default_factory=dict[tuple[str, int], Episode])
    """By task id and sample."""
    costs: dict[tuple[int, tuple[str, ...]], dict[str, int]] = field(
        default_factory=dict[tuple[int, tuple[str, ...]], dict[str, int]]
    )
    """Counters of `Spent` by batch: its sample, its tasks."""
    failures: list[str] = field(default_factory=list[str])
    write: Callable[[Sequence[Mapping[str, object]]], None] = lambda _: None

    @property
    def spent(self) -> Spent:
        """What all batches cost."""
        total = Spent()
        for batch in sorted(self.costs):
            total += Spent(**cast("dict[str, Any]", self.costs[batch]))
        return total

    def holds(self, part: Sequence[Task], sample: int) -> bool:
        """Whether all of a batch is there."""
        return all((task.id, sample) in self.episodes for task in part)

    def add(self, part: Sequence[Task], sample: int, found: Sequence[Episode], spent: Spent) -> None:
        """Keep a batch: what of it is new, and its cost once."""
        batch = (sample, tuple(task.id for task in part))
        new = [one for one in found if (one.task, sample) not in self.episodes]
        lines: list[dict[str, object]] = [asdict(one) for one in new]
        if batch not in self.costs:  # last, so that it is there only where all of the batch is
            lines.append({"batch": batch[1], "sample": sample, "spent": spent.counts()})
        self.write(lines)
        self.episodes |= {(one.task, sample): one for one in new}
        self.costs.setdefault(batch, spent.counts())

    def take(self, line: Mapping[str, Any]) -> None:
        """A line as `add` wrote it; the first of several counts."""
        if "batch" in line:
            self.costs.setdefault((line["sample"], tuple(line["batch"])), line["spent"])
        else:
            found = Episode(**line)
            self.episodes.setdefault((found.task, found.sample), found)


@dataclass(frozen=True)
class Folder:
    """An evaluation's folder, open for one shard of it; made by `open_folder`."""

    path: Path
    own: Lines

    def level(self, name: str) -> Played:
        """What all files hold of a level, as they are now.

        Raises:
            StorageError: a line cannot be read.
        """
        played = Played(write=lambda lines: self.own.add([{"level": name, **line} for line in lines]))
        for file in sorted(self.path.glob("episodes*.jsonl")):
            for number, line in enumerate(read_lines(file), start=1):
                try:
                    if line.pop("level") == name:
                        played.take(line)
                except (AttributeError, KeyError, TypeError) as error:
                    raise StorageError(
                        f"{file} has a line {number} that is no episode: delete the line or the file"
                    ) from error
        return played


@contextlib.contextmanager
def open_folder(path: Path, settings: Mapping[str, object], shard: Shard | None = None) -> Generator[Folder]:
    """A new evaluation's folder, or one to go on with.

    Args:
        path: the folder.
        settings: JSON values that decide what an episode is.
        shard: whose file is written; None: the whole evaluation's.

    Raises:
        UsageError: it was begun with other settings, or another process writes this shard.
    """
    asked: dict[str, object] = json.loads(json.dumps({"format": FORMAT, **settings}))
    file = path / "settings.json"
    if file.exists():
        begun: dict[str, object] = json.loads(file.read_text())
        for name in asked:
            if current(begun.get(name)) != asked[name]:  # whichever version wrote it
                raise UsageError(
                    f"{path} was begun with {name} {json.dumps(begun.get(name))}, not {json.dumps(asked[name])}: "
                    "give another --out, or the same settings"
                )
    elif path.is_dir() and any(path.glob("[!.]*")):
        raise UsageError(f"{path} holds something else than an evaluation: give another --out")
    else:
        write_json(file, asked)
    with Lines(path / (shard or Shard()).file) as own:
        yield Folder(path, own)
