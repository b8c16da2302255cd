"""The episodes of an evaluation, saved one by one so that an interrupted evaluation can continue.

    DIR/settings.json              the settings; a folder with other settings is refused
    DIR/episodes.jsonl             a line for each episode, and a line for the cost of each batch
    DIR/episodes.2-of-4.jsonl      the same for one shard; all files together are the evaluation
    DIR/results.json, results.md   the numbers and the tables, written when every episode is there

Invariants
----------
* The task and the number of the sample identify an episode. An episode counts once, even if several files hold it.
* Lines are appended batch by batch and are on disk before the next batch starts. An incomplete batch is played again as a
  whole, so that its episodes are the same, and the missing ones are added.
* Episodes whose environment failed are not saved, so the next command tries them again.
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
        """The shard that a text such as `2/4` names.

        Raises:
            UsageError: the text names no shard.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UsageError(f"shard is {text}: it must be a number and how many there are, such as 2/4")
        return cls(int(number), int(count))

    @property
    def file(self) -> str:
        """Name of the file with the episodes of the shard."""
        return "episodes.jsonl" if self.count == 1 else f"episodes.{self.number}-of-{self.count}.jsonl"

    def holds(self, batch: int) -> bool:
        """Whether a batch (from 0) belongs to the shard."""
        return batch % self.count == self.number - 1


@dataclass(frozen=True)
class Episode:
    """The numbers of one trajectory."""

    task: str
    sample: int
    success: bool
    score: float
    """Sum of the rewards."""
    steps: int
    counts: Mapping[str, int]
    """`metrics.step_counts` of the steps."""
    progress: Mapping[str, float] = field(default_factory=dict[str, float])
    """Measures of the progress of the task at the end."""
    grown: Mapping[str, int] = field(default_factory=dict[str, int])
    """Numbers of the tree from which the trajectory was chosen: leaves, nodes, whether any leaf succeeded (`best`); success,
    steps and tokens of the trajectory without branching (`alone`, `alone_steps`, `alone_tokens`); success of the choice of
    each rule (`by_majority`, `by_likelihood`). Empty where there was no choice."""


def episode(tree: Tree, sample: int, choose: Choose | None = None) -> Episode:
    """The episode of a tree: its chosen trajectory, or its only one."""
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
    """The episodes of one level so far."""

    episodes: dict[tuple[str, int], Episode] = field(default_factory=dict[tuple[str, int], Episode])
    """Episodes by task id and sample."""
    costs: dict[tuple[int, tuple[str, ...]], dict[str, int]] = field(
        default_factory=dict[tuple[int, tuple[str, ...]], dict[str, int]]
    )
    """Counters of `Spent` by batch: the sample and the tasks."""
    failures: list[str] = field(default_factory=list[str])
    write: Callable[[Sequence[Mapping[str, object]]], None] = lambda _: None

    @property
    def spent(self) -> Spent:
        """The cost of all batches."""
        total = Spent()
        for batch in sorted(self.costs):
            total += Spent(**cast("dict[str, Any]", self.costs[batch]))
        return total

    def holds(self, part: Sequence[Task], sample: int) -> bool:
        """Whether all episodes of a batch are there."""
        return all((task.id, sample) in self.episodes for task in part)

    def add(self, part: Sequence[Task], sample: int, found: Sequence[Episode], spent: Spent) -> None:
        """Add the new episodes of a batch, and its cost if it has not been counted."""
        batch = (sample, tuple(task.id for task in part))
        new = [one for one in found if (one.task, sample) not in self.episodes]
        lines: list[dict[str, object]] = [asdict(one) for one in new]
        if batch not in self.costs:  # last, so that a saved cost means a complete batch
            lines.append({"batch": batch[1], "sample": sample, "spent": spent.counts()})
        self.write(lines)
        self.episodes |= {(one.task, sample): one for one in new}
        self.costs.setdefault(batch, spent.counts())

    def take(self, line: Mapping[str, Any]) -> None:
        """Read a line that `add` wrote; the first line of an episode counts."""
        if "batch" in line:
            self.costs.setdefault((line["sample"], tuple(line["batch"])), line["spent"])
        else:
            saved = Episode(**line)
            self.episodes.setdefault((saved.task, saved.sample), saved)


@dataclass(frozen=True)
class Folder:
    """The folder of an evaluation, open for one shard; made by `open_folder`."""

    path: Path
    own: Lines | None
    """The file to which episodes are added; None in a process that only reads."""

    def level(self, name: str) -> Played:
        """The episodes of a level in all files of the folder.

        Raises:
            StorageError: a line cannot be read.
        """
        own = self.own
        played = Played(write=lambda lines: own.add([{"level": name, **line} for line in lines]) if own else None)
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
    """Open the folder of a new evaluation, or of one to continue.

    Args:
        path: the folder.
        settings: JSON values that determine the episodes.
        shard: the shard whose file is written; None writes the file of the whole evaluation.

    Raises:
        UsageError: the folder has other settings, or another process writes this shard.
    """
    wanted: dict[str, object] = json.loads(json.dumps({"format": FORMAT, **settings}))
    file = path / "settings.json"
    if file.exists():
        begun: dict[str, object] = json.loads(file.read_text())
        for name in wanted:
            if current(begun.get(name)) != wanted[name]:  # `current`: an older version may have written the folder
                raise UsageError(
                    f"{path} was begun with {name} {json.dumps(begun.get(name))}, not {json.dumps(wanted[name])}: "
                    "give another --out, or the same settings"
                )
    elif path.is_dir() and any(path.glob("[!.]*")):
        raise UsageError(f"{path} holds something else than an evaluation: give another --out")
    else:
        write_json(file, wanted)
    with Lines(path / (shard or Shard()).file) as own:
        yield Folder(path, own)
