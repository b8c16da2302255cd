"""Proofs that are too long for a test run: every item is checked once, and what was found is kept in a file a proof.

    make prove                                        all of them
    python benchmarks/prove.py alfworld-walkthroughs --data DIR

A proof that was stopped goes on where it was. Exit code 1 when something does not hold. The lines at the end are those of
docs/proofs.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from spark_rl.environments.alfworld import Alfworld
from spark_rl.errors import SparkError
from spark_rl.prompting.parsing import parse
from spark_rl.types import Request, Task

ROOT = Path(__file__).resolve().parent.parent
HORIZON = 30


@dataclass(frozen=True)
class Proof:
    """Something that is to hold of every item."""

    claim: str
    items: Callable[[Path | None], list[tuple[Any, Task]]]
    """What it is to hold of, given the folder of the games: (world, task)."""
    check: Callable[[Any, Task], dict[str, Any]]
    """What was found; `holds` says whether it is as claimed."""


def games(solver: str) -> Callable[[Path | None], list[tuple[Any, Task]]]:
    """All validation games, played by an expert."""

    def items(data: Path | None) -> list[tuple[Any, Task]]:
        world = Alfworld(data=str(data or ""), engines=8, solver=solver)  # pyright: ignore[reportArgumentType]
        return [(world, task) for level in ("L0", "L1") for task in world.tasks(level, "test")]

    return items


def expert_wins(world: Alfworld, task: Task) -> dict[str, Any]:
    """Let the world's expert play a task: it should win within the horizon, by admissible actions only."""
    env, expert = world.make(), world.expert()
    observation, history, refused = env.reset(task), (), 0
    while not observation.done and len(history) < HORIZON:
        request = Request(task, (), observation, seeds=(0,), history=history)
        [[answer]] = asyncio.run(expert.sample([request]))
        action = parse(answer.text).action
        observation, history = env.step(action), (*history, action)
        refused += not observation.admissible
    return {"holds": observation.success and not refused, "steps": len(history), "kind": task.kind}


PROOFS = {
    "alfworld-walkthroughs": Proof(
        "the solution stored with a game wins it, each action admissible, on every official validation game",
        games("walkthrough"),
        expert_wins,
    ),
    "alfworld-search": Proof(
        f"the searching expert wins within {HORIZON} steps, each action admissible, on every official validation game",
        games("search"),
        expert_wins,
    ),
}


def run(name: str, data: Path | None, out: Path) -> tuple[str, list[str]]:
    """Check what has not been checked; returns the proof's row of the table, and what does not hold."""
    proof, file = PROOFS[name], out / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = file.read_text().splitlines() if file.exists() else []
    found: dict[str, dict[str, Any]] = {record["item"]: record for record in map(json.loads, lines)}
    items = proof.items(data)
    with file.open("a") as kept:
        for world, task in track(items, name, console=Console(stderr=True)):
            if task.id not in found:
                try:
                    result = proof.check(world, task)
                except SparkError as error:
                    result = {"holds": False, "error": str(error)}
                found[task.id] = {"item": task.id, **result}
                print(json.dumps(found[task.id]), file=kept, flush=True)
    records = [found[task.id] for _, task in items]
    steps = [record["steps"] for record in records if record["holds"]]
    row = f"| `{name}` | {proof.claim} | {len(steps)} of {len(records)} | {statistics.fmean(steps or [0]):.1f} |"
    return row, [f"does not hold: {record}" for record in records if not record["holds"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the proofs that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PROOFS))
    parser.add_argument("--data", type=Path, help="folder of the games; by default where spark-rl looks for them")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "proofs")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(PROOFS):
        parser.error(f"unknown proof {', '.join(unknown)}; choose from {', '.join(PROOFS)}")
    outcomes = [run(name, options.data, options.out) for name in options.names or PROOFS]
    print("| proof | claim | holds | steps |\n|---|---|---|---|", *(row for row, _ in outcomes), sep="\n")
    failures = [failure for _, some in outcomes for failure in some]
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
