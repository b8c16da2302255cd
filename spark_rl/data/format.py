"""The file of demonstrations: JSON lines, one step each, trajectory after trajectory.

Invariants
----------
* A line stands alone: it holds the prompt as RL renders it, the answer, and all that is needed to play and render the
  step again (`world`, `task`, `rendering`).
* Every column has one type in all lines of all files (`COLUMNS`), so `datasets.load_dataset("json", data_files=...)` reads
  them, and two files can be put together. Values of many shapes are therefore JSON inside a text, a list of actions is a
  text with a line each (an empty list has no type), and a date is no bare ISO date, which would be read as a time.
* Won and lost trajectories have the same format; only `success` differs.

Files of the first version (`spark-rl-demonstration/1`) are read: what they do not say is empty. Lines name classes as
the version did that wrote them; they are read under today's names, so that lines of several versions agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, cast

from spark_rl.common.files import write_bytes
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
Line = tuple[int, Record]
"""Number of a line in its file, from 1, and what it says."""

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
"""Column -> type; docs/data.md says what each is. `prompt` is a list of messages."""


@dataclass(frozen=True)
class Origin:
    """Where a trajectory comes from, and what it takes to play and render it again."""

    world: str = ""
    """The world with its options: JSON text of `recipe.encode`. Empty in files of the first version."""
    level: str = ""
    """Level whose training split holds the task."""
    source: Source = "expert"
    """`expert`: a world's own. `annotated`: an expert's actions with a teacher's reasons. `played`: a policy's own."""
    author: str = ""
    """Model or expert who gave the answers."""
    date: str = ""
    """Day they were given, `2026-01-31 UTC`."""
    prompt_version: str = ""
    """Which prompt the author answered to; empty for experts, who read none."""
    rendering: str = ""
    """How `prompt` is rendered: JSON text of the `Prompt`. Filled in by `save`."""


@dataclass(frozen=True)
class Demonstration:
    """One trajectory, won or lost."""

    tree: Tree
    slips: frozenset[int] = frozenset()
    """Nodes that are shown and not to be learnt."""
    origin: Origin = Origin()

    @property
    def won(self) -> bool:
        """Whether the task was solved."""
        return self.tree.nodes[-1].success


def origin(world: World, level: str, source: Source, author: str, prompt_version: str = "") -> Origin:
    """The origin of what somebody does today in a world."""
    playable = as_text(encode(world)) if is_dataclass(world) else ""
    return Origin(playable, level, source, author, f"{datetime.now(UTC):%Y-%m-%d} UTC", prompt_version)


def prompt_version(prompt: Prompt) -> str:
    """A short name of how RL's prompts are written: instructions and settings; another text, another name."""
    settings = _without_sparks_modes(encode(prompt, hashed_name))
    return "prompt-" + sha256((INSTRUCTIONS[prompt.modes] + as_text(settings)).encode()).hexdigest()[:8]


def _rendering(prompt: Prompt) -> str:
    """A prompt's settings as text."""
    return as_text(_without_sparks_modes(encode(prompt)))


def _without_sparks_modes(settings: Record) -> Record:
    """A prompt's settings, encoded. SPARK's modes are not said, so that files older than the choice say the same."""
    return {name: value for name, value in settings.items() if (name, value) != ("modes", Prompt.modes)}


@cache
def _current(text: str) -> str:
    """The column `world` or `rendering` as it is written today, so that files of several versions say the same alike.

    What is no JSON, or no settings, is left as it is: whoever needs it objects.
    """
    try:
        settings: Any = json.loads(text)
    except ValueError:
        return text
    if not isinstance(settings, dict) or "type" not in settings:
        return text
    found = cast(Record, current(cast(Record, settings)))
    return as_text(_without_sparks_modes(found) if found["type"] == "prompt" else found)


def as_text(value: Any) -> str:
    """JSON without spaces, keys in their order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# -- writing --------------------------------------------------------------------------------------------------------


def save(demonstrations: Iterable[Demonstration], path: Path, prompt: Prompt) -> None:
    """Write demonstrations, one step a line, in one go.

    Raises:
        StorageError: the file cannot be written; what was there before is untouched.
    """
    write_records((records(index, shown, prompt) for index, shown in enumerate(demonstrations)), path)


def write_records(groups: Iterable[Sequence[Record]], path: Path) -> None:
    """Write trajectories given as their lines, numbered anew, in one go."""
    lines = [json.dumps({**record, "trajectory": number}) + "\n" for number, group in enumerate(groups) for record in group]
    write_bytes(path, "".join(lines).encode())


def records(index: int, shown: Demonstration, prompt: Prompt) -> list[Record]:
    """The lines of one trajectory, as values of `COLUMNS`."""
    tree, task, source = shown.tree, shown.tree.task, shown.origin
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
            "slip": step in shown.slips,
            "actions": "\n".join(tree.nodes[step - 1].actions if step else tree.actions),
            "state_key": node.state_key,
            "observation": tree.nodes[step - 1].observation if step else tree.observation,
            "next_observation": node.observation,
            "admissible": node.admissible,
            "reward": float(node.reward),
            "done": node.done,
            "success": shown.won,
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
    for number, found in read_lines(path):
        if isinstance(found, str):
            raise StorageError(f"{path} line {number} {found}; write the file again")
        good.append((number, found))
    return [[record for _, record in group] for group in trajectories(good)]


def trajectories(lines: Iterable[Line]) -> list[list[Line]]:
    """Lines by trajectory; those of one stand together."""
    return [list(group) for _, group in groupby(lines, key=lambda line: line[1]["trajectory"])]


def read_lines(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Number of each line and what it says in today's format, or what is wrong with it.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} is no readable demonstration file ({error}); `spark-rl demos` writes one") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _read(line)


def _read(line: str) -> Record | str:
    try:
        found: Any = json.loads(line)
    except ValueError as error:
        return f"is not JSON ({error})"
    if not isinstance(found, dict):
        return "is no JSON object"
    record = cast(Record, found)
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
    unknown = dict.fromkeys(("world", "level", "author", "date", "prompt_version", "rendering"), "")
    told = {"source": "expert", "reward": float(won), "done": won}
    return {**unknown, **told, **record, "actions": actions, "format": FORMAT}


def read_as(record: Record) -> Callable[[str], Parsed]:
    """How a line's completion is read: in the modes that its prompt asks for, SPARK's where the line does not say."""
    try:
        said: Any = json.loads(record["rendering"] or "{}")
    except ValueError:  # `data.checks` objects to it; the answer can be read all the same
        said = {}
    modes = cast(Record, said).get("modes") if isinstance(said, dict) else None
    return Prompt(modes=modes if modes in MODES else Prompt.modes).parse


def demonstration(group: Sequence[Record]) -> Demonstration:
    """The trajectory that lines of one number make."""
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
