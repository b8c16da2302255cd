"""The games under a folder: a quick count, or every game read and the numbers compared with the official ones.

Invariant: an `Inventory` counts a file as a game only if the file has everything that the engine needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from spark_rl.contracts import Watcher
from spark_rl.environments.alfworld.games import KINDS, OFFICIAL, FolderGames, game_files
from spark_rl.errors import EnvironmentFailure

__all__ = ["Inventory", "SplitFound", "counted", "verify"]

_SHORT = ("place", "look", "clean", "heat", "cool", "two")
"""Names of the types in a table, in the order of `KINDS`."""
_SHOWN = 5
"""Most broken files that are named; all others are counted."""
_KEYS: dict[str, type] = {"pddl_domain": str, "grammar": str, "pddl_problem": str, "walkthrough": list}


@dataclass(frozen=True)
class SplitFound:
    """The games in the folder of a split."""

    name: str
    kinds: tuple[int, ...]
    """Number of playable games by type, in the order of `KINDS`."""
    broken: tuple[str, ...] = ()
    """A line for each damaged file."""

    def lacking(self) -> str:
        """The differences from the official split, in a sentence; empty where there are none."""
        official = OFFICIAL[self.name]
        if not sum(self.kinds):
            return f"{self.name}: none of {sum(official):,} official games"
        pairs = list(zip(_SHORT, self.kinds, official, strict=True))
        lacks = [f"{most - count} {name}" for name, count, most in pairs if count < most]
        extra = [f"{count - most} {name}" for name, count, most in pairs if count > most]
        parts = [f"{words}: {', '.join(kinds)}" for words, kinds in (("missing", lacks), ("too many", extra)) if kinds]
        return "; ".join([f"{self.name}: {sum(self.kinds):,} of {sum(official):,} official games", *parts]) if parts else ""


@dataclass(frozen=True)
class Inventory:
    """The games under a folder, each of which has been read."""

    root: Path
    splits: tuple[SplitFound, ...]

    @property
    def complete(self) -> bool:
        """Whether every official game is there, and nothing is broken."""
        return not any(split.lacking() or split.broken for split in self.splits)

    @property
    def broken(self) -> tuple[str, ...]:
        """A line for each damaged file."""
        return tuple(line for split in self.splits for line in split.broken)

    @property
    def setting(self) -> tuple[str, str]:
        """Environment variable that names these games, and its value."""
        return "ALFWORLD_DATA", str(self.root.parent if self.root.name == "json_2.1.1" else self.root)

    def table(self) -> list[tuple[str, ...]]:
        """The rows of a table of the games, heading first."""
        rows = [
            (split.name, f"{sum(split.kinds):,}", f"{sum(OFFICIAL[split.name]):,}", *map(str, split.kinds))
            for split in self.splits
        ]
        return [("split", "games", "official", *_SHORT), *rows]

    def remarks(self) -> list[str]:
        """A sentence for each thing that is missing or damaged."""
        lines = [lacking for split in self.splits if (lacking := split.lacking())]
        lines += self.broken[:_SHOWN]
        if (more := len(self.broken) - _SHOWN) > 0:
            lines.append(f"... and {more:,} more such files")
        return lines or [f"all {sum(map(sum, OFFICIAL.values())):,} official games are there and whole"]


def counted(root: Path) -> str:
    """The number of games in each split, in a line."""
    listing = FolderGames(root)
    counts = (f"{split} {_count(listing, split):,} of {sum(official):,}" for split, official in OFFICIAL.items())
    return f"official games in {root}: {', '.join(counts)}"


def _count(listing: FolderGames, split: str) -> int:
    return len(listing.split(split)) if game_files(listing.root, split) else 0


def verify(root: Path, tell: Watcher) -> Inventory:
    """Read every game under a folder.

    Args:
        root: the folder of the splits.
        tell: receives the progress.
    """
    files = {split: [task_id for task_id, _ in game_files(root, split)] for split in OFFICIAL}
    tell.phase("verify the games", sum(map(len, files.values())))
    games, done, splits = FolderGames(root), 0, list[SplitFound]()
    for split, ids in files.items():
        kinds, broken = [0] * len(KINDS), list[str]()
        for task_id in ids:
            try:
                playable = _is_game(games.read(task_id))
            except (EnvironmentFailure, ValueError) as error:
                reason = " ".join(str(error.__cause__ or error).split())
                broken.append(f"{games.file(task_id)} is no whole game ({reason}): remove {root / split} and fetch it again")
            else:
                kinds[KINDS.index(task_id.split("/")[1].partition("-")[0])] += playable
            done += 1
            tell.advance(done)
        splits.append(SplitFound(split, tuple(kinds), tuple(broken)))
    return Inventory(root, tuple(splits))


def _is_game(game: object) -> bool:
    """Whether the game can be solved; raises ValueError, with the reason, where the engine could not load the game."""
    if not isinstance(game, dict):
        raise ValueError("not a JSON object")
    fields = cast("dict[str, object]", game)
    solvable = fields.get("solvable")
    if not isinstance(solvable, bool):
        raise ValueError('"solvable" is missing')
    for key, kind in _KEYS.items():
        if solvable and not (isinstance(fields.get(key), kind) and fields[key]):
            raise ValueError(f'"{key}" is missing or empty')
    if solvable and "Your task is to: " not in str(fields["grammar"]):
        raise ValueError('"grammar" names no task')
    return solvable
