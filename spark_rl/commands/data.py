"""`spark-rl data ...`: check, merge and sample files of demonstrations."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from spark_rl.commands.base import Call
from spark_rl.config.codec import decode
from spark_rl.config.options import take
from spark_rl.contracts import Encoder, World
from spark_rl.environments.registry import load_world
from spark_rl.errors import UsageError
from spark_rl.recipes import load_recipe

if TYPE_CHECKING:
    from spark_rl.data.format import Record

__all__ = ["check", "merge", "sample", "world_of_line"]

MOST = 50
"""Maximum number of objections to print; the rest is only counted."""


@dataclass(frozen=True)
class _Check:
    """Check every line of a file of demonstrations, and print the file's profile.

    The checks cover tags and actions, the order of steps, prompts as RL renders them, and held-out tasks; with `--replay`
    also the world's answers. A file of version 1 needs `--recipe NAME` for its world and prompts.
    """

    env: World
    """The world in the file; options of the command line override its settings."""
    level: str = ""
    """Level whose training tasks may be demonstrated, if the file does not name the level."""
    replay: bool = False
    """Play each trajectory again and compare all answers of the world."""
    model: str = ""
    """Model directory, run or hub name: compare prompts token for token with its tokenizer, and count tokens, not words."""


@dataclass(frozen=True)
class _Merge:
    """Merge files of one world: trajectories get new numbers, and duplicates are left out."""

    out: Path = Path("merged.jsonl")
    """File to write."""


@dataclass(frozen=True)
class _Sample:
    """Take some trajectories at random."""

    count: int = 0
    """Number of trajectories (required)."""
    balanced: bool = False
    """Take the same number of every task type, or all where a type has fewer."""
    seed: int = 0
    out: Path = Path("sample.jsonl")
    """File to write."""


def check(call: Call) -> int:
    """Print a profile, notes, and one line per objection; exit code 1 when there is an objection."""
    from spark_rl.data import checks
    from spark_rl.data.format import read_lines
    from spark_rl.data.profile import profile

    recipe_name, argv = take(call.argv, "--recipe")
    name, call = replace(call, argv=argv).positional("a file of demonstrations")
    file, recipe = Path(name), load_recipe(recipe_name) if recipe_name else None
    first = next((line for _, line in read_lines(file) if not isinstance(line, str)), None)
    default = recipe.env if recipe else load_world("household")
    options = call.options(_Check(world_of_line(call, first, default) if first else default))
    known: dict[str, World] = {}

    def world_of(record: Record) -> World:
        text = f"{record['environment']} {record['world']}"
        if text not in known:
            known[text] = call.options(_Check(world_of_line(call, record, default))).env
        return known[text]

    encoder = _encoder(options.model) if options.model else None
    level = options.level or (recipe.level if recipe else "")
    with call.watching() as watcher:
        watcher.phase("check")
        findings = checks.check(
            file,
            world_of,
            level=level,
            prompt=recipe.prompt if recipe else None,
            encoder=encoder,
            replay=options.replay,
            advance=watcher.advance,
        )
    if findings.groups:
        print(f"{profile(findings.groups, encoder)}\n")
    for note in findings.notes:
        print(f"Note: {note}.")
    for number, text in findings.objections[:MOST]:
        print(f"{file} line {number} {text}")
    if (more := len(findings.objections) - MOST) > 0:
        print(f"... and {more} more")
    if options.replay:
        print(f"{findings.replayed} of {len(findings.groups)} trajectories were played again.")
    print(f"{len(findings.objections)} objections" if findings.objections else "Nothing is wrong.")
    return 1 if findings.objections else 0


def world_of_line(call: Call, record: Record, default: World) -> World:
    """The world that a line describes; for a line with only a name, the default world if it matches, else a new world."""
    if record["world"]:
        try:
            return cast(World, decode(json.loads(record["world"]), foreign=call.trusts))
        except ValueError as error:
            raise UsageError(f'the column "world" holds what is not JSON ({error}): write the file again') from error
    return default if record["environment"] == default.name else load_world(record["environment"])


def _encoder(model: str) -> Encoder:
    from spark_rl.commands.base import hush
    from spark_rl.models.load import load_tokenizer
    from spark_rl.prompting.encoder import ChatEncoder
    from spark_rl.runs.checkpoints import model_folder

    hush()
    return ChatEncoder(load_tokenizer(model_folder(model)))


def merge(call: Call) -> int:
    """Write the merged file, and print a summary."""
    from spark_rl.data.format import read_records, write_records
    from spark_rl.data.profile import doubles

    names, call = call.positionals("files of demonstrations")
    options = call.options(_Merge())
    files = [(name, read_records(Path(name))) for name in names]
    for column, what in (("environment", "play different worlds"), ("rendering", "render prompts differently")):
        values = {group[0][column]: name for name, groups in files for group in groups}
        if len(values) > 1:
            raise UsageError(f"{' and '.join(list(values.values())[:2])} {what}: merge files of one world and one rendering")
    groups = [group for _, some in files for group in some]
    twice = set(doubles(groups))
    single = [group for index, group in enumerate(groups) if index not in twice]
    write_records(single, options.out)
    print(f"{len(single)} trajectories of {len(files)} files, {len(twice)} doubles left out: {options.out}")
    return 0


def sample(call: Call) -> int:
    """Write the chosen trajectories in the order of the file, and print the number of each task type."""
    from spark_rl.data.format import read_records, write_records
    from spark_rl.data.profile import choose

    name, call = call.positional("a file of demonstrations")
    options = call.options(_Sample())
    groups = read_records(Path(name))
    if not 1 <= options.count <= len(groups):
        raise UsageError(f"--count is {options.count}: {name} holds {len(groups)} trajectories, so give 1 to {len(groups)}")
    chosen = choose([group[0]["kind"] for group in groups], options.count, balanced=options.balanced, seed=options.seed)
    write_records([groups[index] for index in chosen], options.out)
    kinds = [groups[index][0]["kind"] for index in chosen]
    shares = ", ".join(f"{kinds.count(kind)} {kind or 'untyped'}" for kind in sorted(set(kinds)))
    print(f"{len(chosen)} of {len(groups)} trajectories ({shares}): {options.out}")
    return 0
