"""`spark-rl data ...`: look at files of demonstrations, put them together, take some."""

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
"""Objections printed; how many more there are is told."""


@dataclass(frozen=True)
class _Check:
    """Look at every line of a file of demonstrations, and print what the file is like.

    Tags and actions, the order of steps, prompts as RL renders them, no task that is tested; with `--replay` also what the
    world answers. `--recipe NAME` says how prompts are rendered and what is played where a file does not (version 1).
    """

    env: World
    """The world as the file names it; options given here override it."""
    level: str = ""
    """Level whose training tasks may be shown, where the file does not say."""
    replay: bool = False
    """Play each trajectory again and compare all that the world answers."""
    model: str = ""
    """Model directory, run or hub name: compare prompts token for token with its tokenizer, and count tokens, not words."""


@dataclass(frozen=True)
class _Merge:
    """Put files of one world together: trajectories numbered anew, none twice."""

    out: Path = Path("merged.jsonl")
    """File to write."""


@dataclass(frozen=True)
class _Sample:
    """Take some trajectories at random."""

    count: int = 0
    """How many (needed)."""
    balanced: bool = False
    """As many of each task type as there are, or the same number."""
    seed: int = 0
    out: Path = Path("sample.jsonl")
    """File to write."""


def check(call: Call) -> int:
    """A profile, notes, and a line for each objection; exit code 1 when there is one."""
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
        found = checks.check(
            file,
            world_of,
            level=level,
            prompt=recipe.prompt if recipe else None,
            encoder=encoder,
            replay=options.replay,
            advance=watcher.advance,
        )
    if found.groups:
        print(f"{profile(found.groups, encoder)}\n")
    for note in found.notes:
        print(f"Note: {note}.")
    for number, text in found.objections[:MOST]:
        print(f"{file} line {number} {text}")
    if (more := len(found.objections) - MOST) > 0:
        print(f"... and {more} more")
    if options.replay:
        print(f"{found.replayed} of {len(found.groups)} trajectories were played again.")
    print(f"{len(found.objections)} objections" if found.objections else "Nothing is wrong.")
    return 1 if found.objections else 0


def world_of_line(call: Call, record: Record, default: World) -> World:
    """The world that a line names; where it only says its name, that of the recipe, or the one with default options."""
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
    """Write one file, and say what is in it."""
    from spark_rl.data.format import read_records, write_records
    from spark_rl.data.profile import doubles

    names, call = call.positionals("files of demonstrations")
    options = call.options(_Merge())
    files = [(name, read_records(Path(name))) for name in names]
    for column, what in (("environment", "play different worlds"), ("rendering", "render prompts differently")):
        said = {group[0][column]: name for name, groups in files for group in groups}
        if len(said) > 1:
            raise UsageError(f"{' and '.join(list(said.values())[:2])} {what}: merge files of one world and one rendering")
    groups = [group for _, some in files for group in some]
    twice = set(doubles(groups))
    single = [group for index, group in enumerate(groups) if index not in twice]
    write_records(single, options.out)
    print(f"{len(single)} trajectories of {len(files)} files, {len(twice)} doubles left out: {options.out}")
    return 0


def sample(call: Call) -> int:
    """Write the chosen trajectories in the order of the file, and say how many of each type they are."""
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
