"""The file of demonstrations: JSON lines, one line for each step, trajectory after trajectory.

Invariants
----------
* A line stands alone: it holds the prompt as RL renders it, the completion, and all that is needed to play and render the
  step again (`world`, `task`, `rendering`).
* Every column has one type in all lines of all files (`COLUMNS`), so `datasets.load_dataset("json", data_files=...)` reads
  the files, and two files can be joined. Values of many shapes are therefore JSON inside a text; a list of actions is a
  text with one line for each action (an empty list has no type); a date is no bare ISO date, which would be read as a time.
* Won and lost trajectories have the same format; only `success` differs.
* A file whose name ends in `.gz` is compressed, to a few hundredths: each line repeats most of the one before it. Reading
  looks at the content, not at the name.

Files of the first version (`spark-rl-demonstration/1`) can be read; the columns that they lack are empty. A line names
classes by the names of the version that wrote the line; reading translates them into today's names, so that lines of
several versions agree.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, cast

from spark_rl.common.files import compressed, write_bytes
from spark_rl.config.codec import current, encode
from spark_rl.config.old_names import hashed_name
from spark_rl.contracts import World
from spark_rl.errors import StorageError
from spark_rl.prompting.instructions import INSTRUCTIONS, MODES
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Node, Parsed, Task, Tree

__all__ = [
    "COLUMNS",
    "FORMAT",
    "Demonstration",
    "Line",
    "Origin",
    "Record",
    "as_text",
    "demonstration",
    "load",
    "origin",
    "prompt_version",
    "read_as",
    "read_lines",
    "read_records",
    "records",
    "save",
    "trajectories",
    "write_records",
]

FORMAT = "spark-rl-demonstration/2"
FIRST = "spark-rl-demonstration/1"
Source = Literal["expert", "annotated", "played"]
Record = dict[str, Any]
"""A line of the file: the values of `COLUMNS`."""
Line = tuple[int, Record]
"""Number of a line in its file, from 1, and the line."""

COLUMNS: dict[str, type] = {
    "format": str,
    "environment": str,
    "world": str,
    "level": str,
    "task": str,
    "kind": str,
    "instruction": str,
    "source": str,
    "author": str,
    "date": str,
    "prompt_version": str,
    "rendering": str,
    "trajectory": int,
    "step": int,
    "steps": int,
    "prompt": list,
    "completion": str,
    "slip": bool,
    "actions": str,
    "state_key": str,
    "observation": str,
    "next_observation": str,
    "admissible": bool,
    "reward": float,
    "done": bool,
    "success": bool,
}
"""Column -> type; docs/data.md describes the columns. `prompt` is a list of messages."""


@dataclass(frozen=True)
class Origin:
    """Where a trajectory comes from, and all that is needed to play and render it again."""

    world: str = ""
    """The world with its options: JSON text of `recipe.encode`. Empty in files of the first version."""
    level: str = ""
    """Level whose training split holds the task."""
    source: Source = "expert"
    """`expert`: by the world's expert. `annotated`: an expert's actions with a teacher's reasons. `played`: by a policy."""
    author: str = ""
    """Model or expert that wrote the completions."""
    date: str = ""
    """Day on which they were written, `2026-01-31 UTC`."""
    prompt_version: str = ""
    """Version of the prompt that the author read; empty for experts, which read none."""
    rendering: str = ""
    """How the column `prompt` is rendered: JSON text of the `Prompt`. Filled in by `save`."""


@dataclass(frozen=True)
class Demonstration:
    """One trajectory, won or lost."""

    tree: Tree
    slips: frozenset[int] = frozenset()
    """Nodes with mistakes, which stand in the prompts of later steps, but are not trained on."""
    origin: Origin = Origin()

    @property
    def won(self) -> bool:
        """Whether the task was solved."""
        return self.tree.nodes[-1].success


def origin(world: World, level: str, source: Source, author: str, prompt_version: str = "") -> Origin:
    """The origin of a trajectory that is made today in a world."""
    playable = as_text(encode(world)) if is_dataclass(world) else ""
    return Origin(playable, level, source, author, f"{datetime.now(UTC):%Y-%m-%d} UTC", prompt_version)


def prompt_version(prompt: Prompt) -> str:
    """A short name of how RL's prompts are written: a hash of the instructions and the settings."""
    settings = _without_sparks_modes(encode(prompt, hashed_name))
    return "prompt-" + sha256((INSTRUCTIONS[prompt.modes] + as_text(settings)).encode()).hexdigest()[:8]


def _rendering(prompt: Prompt) -> str:
    """A prompt's settings as text."""
    return as_text(_without_sparks_modes(encode(prompt)))


def _without_sparks_modes(settings: Record) -> Record:
    """A prompt's encoded settings without `modes` where the modes are SPARK's, as in files older than this setting."""
    return {name: value for name, value in settings.items() if (name, value) != ("modes", Prompt.modes)}


@cache
def _current(text: str) -> str:
    """The column `world` or `rendering` as it is written today, so that equal settings of several versions are equal texts.

    A text that is no JSON, or no settings, is returned unchanged: whoever needs the settings objects.
    """
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    if not isinstance(value, dict) or "type" not in value:
        return text
    settings = cast(Record, current(cast(Record, value)))
    return as_text(_without_sparks_modes(settings) if settings["type"] == "prompt" else settings)


def as_text(value: object) -> str:
    """JSON without spaces, keys in their order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# -- writing --------------------------------------------------------------------------------------------------------


def save(demonstrations: Iterable[Demonstration], path: Path, prompt: Prompt) -> None:
    """Write demonstrations, one line for each step; the file appears whole or not at all.

    Raises:
        StorageError: the file cannot be written; an earlier file is untouched.
    """
    write_records((records(index, each, prompt) for index, each in enumerate(demonstrations)), path)


def write_records(groups: Iterable[Sequence[Record]], path: Path) -> None:
    """Write the lines of trajectories, with new numbers of trajectories; the file appears whole or not at all."""
    lines = [json.dumps({**record, "trajectory": number}) + "\n" for number, group in enumerate(groups) for record in group]
    data = "".join(lines).encode()
    write_bytes(path, compressed(data) if path.suffix == ".gz" else data)


def records(index: int, demonstration: Demonstration, prompt: Prompt) -> list[Record]:
    """The lines of one trajectory, as values of `COLUMNS`."""
    tree, task, source = demonstration.tree, demonstration.tree.task, demonstration.origin
    rendering = _rendering(prompt)
    return [
        {
            "format": FORMAT,
            "environment": task.environment,
            "world": source.world,
            "level": source.level,
            "task": task.id,
            "kind": task.kind,
            "instruction": task.instruction,
            "source": source.source,
            "author": source.author,
            "date": source.date,
            "prompt_version": source.prompt_version,
            "rendering": rendering,
            "trajectory": index,
            "step": step + 1,
            "steps": len(tree.nodes),
            "prompt": [dict(message) for message in prompt.render(tree, node.parent, None).messages],
            "completion": node.text,
            "slip": step in demonstration.slips,
            "actions": "\n".join(tree.nodes[step - 1].actions if step else tree.actions),
            "state_key": node.state_key,
            "observation": tree.nodes[step - 1].observation if step else tree.observation,
            "next_observation": node.observation,
            "admissible": node.admissible,
            "reward": float(node.reward),
            "done": node.done,
            "success": demonstration.won,
        }
        for step, node in enumerate(tree.nodes)
    ]


# -- reading --------------------------------------------------------------------------------------------------------


def load(path: Path) -> list[Demonstration]:
    """Read demonstrations back, without token ids.

    Raises:
        StorageError: a line cannot be read; the message names it.
    """
    return [demonstration(group) for group in read_records(path)]


def read_records(path: Path) -> list[list[Record]]:
    """The lines of each trajectory, as values of `COLUMNS`.

    Raises:
        StorageError: a line cannot be read; the message names it.
    """
    good: list[Line] = []
    for number, line in read_lines(path):
        if isinstance(line, str):
            raise StorageError(f"{path} line {number} {line}; write the file again")
        good.append((number, line))
    return [[record for _, record in group] for group in trajectories(good)]


def trajectories(lines: Iterable[Line]) -> list[list[Line]]:
    """The lines of each trajectory; in a file they stand together."""
    return [list(group) for _, group in groupby(lines, key=lambda line: line[1]["trajectory"])]


def read_lines(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Number of each line, and the line in today's format, or a text that says what is wrong with the line.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise StorageError(f"{path} is no readable demonstration file ({error}); `spark-rl demos` writes one") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _read(line)


def _read(line: str) -> Record | str:
    try:
        value: object = json.loads(line)
    except ValueError as error:
        return f"is not JSON ({error})"
    if not isinstance(value, dict):
        return "is no JSON object"
    record = cast(Record, value)
    if record.get("format") == FIRST:
        record = _upgraded(record)
    elif record.get("format") != FORMAT:
        return f"has the format {record.get('format')!r}, which is neither {FORMAT} nor {FIRST}"
    for column, kind in COLUMNS.items():
        if column not in record:
            return f'lacks the column "{column}"'
        # True is an int in Python, and a whole number a float in JSON.
        if type(record[column]) is not kind and not (kind is float and type(record[column]) is int):
            return f'has {record[column]!r} in the column "{column}", which must be of type {kind.__name__}'
    if not all(isinstance(m, dict) and sorted(cast(Record, m)) == ["content", "role"] for m in record["prompt"]):
        return 'has a column "prompt" that is no list of messages with role and content'
    return {**record, "world": _current(record["world"]), "rendering": _current(record["rendering"])}


def _upgraded(record: Record) -> Record:
    """A line of the first version in today's format."""
    actions = record.get("actions")
    if isinstance(actions, list):
        actions = "\n".join(cast("list[str]", actions))
    last = record.get("step") == record.get("steps")
    won = last and bool(record.get("success"))
    empty = dict.fromkeys(("world", "level", "author", "date", "prompt_version", "rendering"), "")
    derived = {"source": "expert", "reward": float(won), "done": won}
    return {**empty, **derived, **record, "actions": actions, "format": FORMAT}


def read_as(record: Record) -> Callable[[str], Parsed]:
    """The parser of a line's completion: in the modes of its prompt, or in SPARK's where the line names no modes."""
    try:
        settings: object = json.loads(record["rendering"] or "{}")
    except ValueError:  # `data.checks` reports this line; its completion can be read all the same
        settings = {}
    modes = cast(Record, settings).get("modes") if isinstance(settings, dict) else None
    return Prompt(modes=modes if modes in MODES else Prompt.modes).parse


def demonstration(group: Sequence[Record]) -> Demonstration:
    """The trajectory of some lines, which belong to one number."""
    first = group[0]
    task = Task(first["environment"], first["task"], first["instruction"], first["kind"])
    tree = Tree(task, first["observation"], _listed(first), opened=1)
    read = read_as(first)
    for index, record in enumerate(group):
        parsed = read(record["completion"])
        last = index == len(group) - 1
        tree.nodes.append(
            Node(
                parent=index - 1,
                path=(0,) * (index + 1),
                prompt=(),
                completion=(),
                logprobs=(),
                text=record["completion"],
                mode=parsed.mode,
                reasoning=parsed.reasoning,
                action=parsed.action,
                well_formed=parsed.well_formed,
                admissible=record["admissible"],
                state_key=record["state_key"],
                observation=record["next_observation"],
                actions=() if last else _listed(group[index + 1]),
                reward=record["reward"],
                done=record["done"],
                success=last and record["success"],
            )
        )
    names = ("world", "level", "source", "author", "date", "prompt_version", "rendering")
    come_from = replace(Origin(), **{name: first[name] for name in names})
    return Demonstration(tree, frozenset(i for i, record in enumerate(group) if record["slip"]), come_from)


def _listed(record: Record) -> tuple[str, ...]:
    return tuple(record["actions"].split("\n")) if record["actions"] else ()
