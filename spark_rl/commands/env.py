"""`spark-rl env ...`: commands for authors of worlds, and for comparing a world with its original."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from spark_rl.commands.base import Call, show
from spark_rl.common.files import write_bytes
from spark_rl.common.running import run
from spark_rl.config.options import take
from spark_rl.contracts import Describes, Fetches, Unlimited, World
from spark_rl.environments.registry import WORLDS, find_task, load_world
from spark_rl.errors import UsageError
from spark_rl.types import Level, Split

__all__ = ["check", "fetch", "list_worlds", "play", "replay", "tasks"]


@dataclass(frozen=True)
class _Tasks:
    """Print the task ids of a level and split, one per line."""

    env: World
    level: Level = "L0"
    split: Split = "train"


@dataclass(frozen=True)
class _Check:
    """Check that a world keeps the contract: exact forks, isolation, determinism, tasks as values, clear errors."""

    env: World
    tasks: int = 5
    """Number of tasks to walk through."""
    steps: int = 30
    """Number of steps of each walk."""
    seed: int = 0


@dataclass(frozen=True)
class _Fetch:
    """Get a world's data and verify every file: from `--from ARCHIVE_OR_DIR`, or by download.

    `--size small|full` chooses WebShop's catalogue.
    """

    to: Path | None = None
    """Folder for the data; by default the folder where the world looks for its data."""
    link: bool = False
    """With --from DIR: link to the folder instead of copying it."""


@dataclass(frozen=True)
class _Play:
    """Be the policy: type an action or its number; `quit` leaves."""

    env: World
    task: str = ""
    """Id of the task; by default the first of the level and split."""
    level: Level = "L0"
    split: Split = "train"
    horizon: int = 30
    """Maximum number of steps."""


@dataclass(frozen=True)
class _Replay:
    """Execute recorded actions and record all answers of the world."""

    env: World
    out: Path | None = None
    """File to write (required): one line per episode, which begins with the state after reset."""


def list_worlds(call: Call) -> int:
    """Print one line per world."""
    call.options(_Nothing())
    for name in WORLDS:
        doc = type(load_world(name)).__doc__ or ""
        print(f"{name:12} {' '.join(doc.split(chr(10) * 2)[0].split())}")
    return 0


@dataclass(frozen=True)
class _Nothing:
    """List the worlds; every command that takes one of these names also takes `package.module:Class`."""


def tasks(call: Call) -> int:
    """Print only ids, so that other programs can read them."""
    name, call = call.positional("an environment", WORLDS)
    options = call.options(_Tasks(load_world(name)))
    for task in options.env.tasks(options.level, options.split):
        print(task.id)
    return 0


def check(call: Call) -> int:
    """Print a table of the contract's clauses; exit code 1 when a clause fails."""
    from rich.table import Table
    from rich.text import Text

    from spark_rl.environments.check import check_world

    name, call = call.positional("an environment", WORLDS)
    options = call.options(_Check(load_world(name)))
    if isinstance(options.env, Describes):
        print(options.env.about())
    report = check_world(options.env, tasks=options.tasks, steps=options.steps, seed=options.seed)
    table = Table(title=report.world, title_justify="left", box=None, show_header=False, pad_edge=False)
    for clause in report.checks:
        mark = Text("✓ pass", style="green") if clause.passed else Text("✗ FAIL", style="bold red")
        table.add_row(mark, clause.name, Text(clause.sentence))
    show(table)
    return 0 if report.passed else 1


def fetch(call: Call) -> int:
    """Print a table of the data, remarks on missing or broken files, and the variable to set; exit code 1 if broken."""
    from rich.table import Table

    name, call = call.positional("an environment", WORLDS)
    source, argv = take(call.argv, "--from")
    size, argv = take(argv, "--size")
    world = load_world(name, **({} if size is None else {"size": size}))
    if not isinstance(world, Fetches):
        raise UsageError(f"{world.name} has nothing to fetch: its tasks come with it")
    options = replace(call, argv=argv).options(_Fetch())
    with call.watching() as watcher:
        data = world.fetch(None if source is None else Path(source), options.to, link=options.link, tell=watcher)
    heading, *rows = data.table()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(heading):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    print(data.root)
    show(table)
    for remark in data.remarks():
        print(remark)
    variable, value = data.setting
    if os.environ.get(variable) != value:
        print(f"export {variable}={shlex.quote(value)}")
    return 1 if data.broken else 0


def play(call: Call) -> int:
    """Let the user at the keyboard act as the policy of a tree with one leaf."""
    from spark_rl.branching.chains import Chains
    from spark_rl.contracts import Growth
    from spark_rl.policies.scripted import Person
    from spark_rl.prompting.prompt import Prompt
    from spark_rl.rollout.grow import grow_tree
    from spark_rl.types import Sampling, TreeShape

    name, call = call.positional("an environment", WORLDS)
    options = call.options(_Play(load_world(name)))
    task = find_task(options.env, options.task) if options.task else options.env.tasks(options.level, options.split)[0]
    growth = Growth(TreeShape(budget=1, roots=1, horizon=options.horizon), Chains(), Prompt(), Sampling())
    tree = run(grow_tree(task, options.env, Person(), growth, seed=0))
    last = tree.nodes[-1]
    outcome = f"✓ Solved in {last.depth} steps." if last.success else f"✗ Not solved in {last.depth} steps."
    print(f"{last.observation}\n{outcome}")
    return 0


def replay(call: Call) -> int:
    """Read JSON lines, replay them, and write JSON lines; the file appears whole or not at all."""
    from spark_rl.environments.replay import trace

    name, call = call.positional("an environment", WORLDS)
    source, call = call.positional("a file of episodes")
    options = call.options(_Replay(load_world(name)))
    if options.out is None:
        raise UsageError(f"{call.prog} needs --out FILE")
    # A recording may have more steps than the world allows an agent.
    world = options.env.unlimited() if isinstance(options.env, Unlimited) else options.env
    lines: list[str] = []
    for number, task_id, actions in _episodes(Path(source)):
        try:
            task = find_task(world, task_id)
        except UsageError as error:
            raise UsageError(f"{source} line {number}: {error}") from error
        lines.append(json.dumps({"task": task_id, "steps": trace(world, task, actions)}) + "\n")
    write_bytes(options.out, "".join(lines).encode())
    return 0


def _episodes(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line number, task id and actions of each episode; empty lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); name a file of JSON lines") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record: object = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path} line {number} is not JSON ({error})") from error
        fields = cast("dict[str, object]", record) if isinstance(record, dict) else {}
        task_id, values = fields.get("task"), fields.get("actions")
        actions = (
            [value for value in cast("list[object]", values) if isinstance(value, str)] if isinstance(values, list) else None
        )
        if not isinstance(task_id, str) or actions is None or actions != values:
            raise UsageError(f'{path} line {number} is not {{"task": ID, "actions": [TEXT, ...]}}')
        yield number, task_id, actions
