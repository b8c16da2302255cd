"""ALFWorld's text engine: step, reset and fork, against the stock engine and against replay, on the same games and actions.

    python benchmarks/alfworld_speed.py [--data FOLDER] [--games 12] [--generated] [--workers 1]
    python benchmarks/alfworld_speed.py --demonstrations 100 [--processes 2]
    python benchmarks/alfworld_speed.py --run RUN

CPU milliseconds, medians, one thread. Stock is TextWorld's environment with ALFWorld's names and nothing of ours, in a
process of its own; its only way to fork is to reset and take the actions again. Both follow the stored solution up to its
last step and then look around until step `DEPTH`, and their answers must be equal. Ours is measured without and with
translations on disk (`kept`). With `--workers` it is measured once more through worker processes, by the clock on the wall.

`--demonstrations` plays demonstrations of `alfworld-tiny` in one and in several processes, each without and with kept
translations; all must be equal to the byte. `--run` prints which share of a run's iterations each phase took.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.table import Table

from spark_rl.environments.alfworld import Alfworld, AlfworldEnvironment
from spark_rl.environments.alfworld.games import Games
from spark_rl.types import Task

DEPTH = 15
MEASURES = ("reset, first", "reset, again", "step", "refused step", "fork", "fork, one step", "fork by replay")

Clock = Callable[[], float]


class Stock:
    """The engine as it comes: one environment, loaded with one game after the other."""

    def __init__(self, games: Games) -> None:
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld import EnvInfos
        from textworld.envs import PddlEnv

        self._games = games
        self._env: Any = AlfredDemangler(PddlEnv(EnvInfos(admissible_commands=True, won=True)), shuffle=False)
        self._loaded = ""

    def reset(self, task: Task) -> str:
        """The first text."""
        if self._loaded != task.id:
            self._env.load(self._games.read(task.id))
        self._loaded = task.id
        return self._env.reset()["feedback"]

    def step(self, action: str) -> tuple[str, tuple[str, ...], bool]:
        """Text, actions but `help`, and verdict."""
        state, _, _ = self._env.step(action)
        listed = tuple(command for command in state["admissible_commands"] if command != "help")
        return state["feedback"], listed, bool(state["won"])


class Ours:
    """Our environment."""

    def __init__(self, world: Alfworld) -> None:
        self._env = world.make()

    def reset(self, task: Task) -> str:
        """The first text."""
        return self._env.reset(task).text

    def step(self, action: str) -> tuple[str, tuple[str, ...], bool]:
        """Text, actions but `help`, and verdict."""
        observation = self._env.step(action)
        return observation.text, observation.actions, observation.success

    def fork(self) -> AlfworldEnvironment:
        """A copy."""
        return self._env.fork()


def measure(player: Stock | Ours, world: Alfworld, plans: dict[str, list[str]], clock: Clock) -> dict[str, Any]:
    """One side on all plans: milliseconds of each measure, and a digest of what it answered."""
    times: dict[str, list[float]] = {name: [] for name in MEASURES}
    said = hashlib.sha256()

    def timed(name: str, what: Callable[[], Any], share: int = 1) -> Any:
        start = clock()
        result = what()
        times[name].append(1000 * (clock() - start) / share)
        return result

    for task_id, actions in plans.items():
        task = world.task(task_id)
        said.update(timed("reset, first", partial(player.reset, task)).encode())
        timed("reset, again", partial(player.reset, task))
        for action in actions:
            said.update(repr(timed("step", partial(player.step, action))).encode())
        said.update(repr(timed("refused step", partial(player.step, "dance"))).encode())
        replay = partial(replayed, player, task, actions)
        timed("fork by replay", replay)
        if isinstance(player, Stock):
            timed("fork", replay)
            timed("fork, one step", lambda replay=replay: (replay(), player.step("look")))
        else:
            timed("fork", lambda: [player.fork() for _ in range(1000)], share=1000)
            player.fork().step("inventory")  # a sibling's turn, so that the next one has to go back
            timed("fork, one step", lambda: player.fork().step("look"))
    return {"times": times, "said": said.hexdigest()}


def replayed(player: Stock | Ours, task: Task, actions: list[str]) -> None:
    """The state after the actions, once more."""
    player.reset(task)
    for action in actions:
        player.step(action)


def planned(world: Alfworld, games: int) -> dict[str, list[str]]:
    """Games over the whole split, each with its solution but the last step, then moves to and fro up to `DEPTH`."""
    tasks = world.tasks("L1", "test")
    plans: dict[str, list[str]] = {}
    for task in tasks[:: max(len(tasks) // games, 1)][:games]:
        actions = world.source().read(task.id)["walkthrough"][:-1]
        plans[task.id] = [*actions, *(("look", "inventory") * DEPTH)][:DEPTH]
    return plans


def part(options: argparse.Namespace) -> dict[str, Any]:
    """What one process measures."""
    world = chosen(options, workers=options.workers if options.part == "workers" else 0)
    plans = planned(world, options.games)
    player = Stock(world.source()) if options.part == "stock" else Ours(world)
    # Imports, and the first use of parsers, are nobody's reset.
    player.reset(next(task for task in world.tasks("L1", "test") if task.id not in plans))
    return measure(player, world, plans, time.perf_counter if options.part == "workers" else time.process_time)


def chosen(options: argparse.Namespace, workers: int) -> Alfworld:
    """The world that the options name, with an engine for each game."""
    games = "generated" if options.generated else "official"
    return Alfworld(data=options.data, games=games, engines=options.games + 2, workers=workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="folder of the games (default: $ALFWORLD_DATA)")
    parser.add_argument("--games", type=int, default=12, help="how many games")
    parser.add_argument("--generated", action="store_true", help="generated games, which need no data")
    parser.add_argument("--workers", type=int, default=0, help="measure this many worker processes too")
    parser.add_argument("--part", choices=("ours", "stock", "kept", "workers"), help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--demonstrations", type=int, default=0, help="play so many demonstrations instead")
    parser.add_argument("--processes", type=int, default=2, help="the number of processes that play them")
    parser.add_argument("--run", type=Path, help="show the phases of this run's iterations instead")
    options = parser.parse_args()
    if options.run:
        phases(options.run)
        return
    if options.demonstrations:
        demonstrations(options)
        return
    if options.part:
        options.into.write_text(json.dumps(part(options)))
        return
    sides: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in ("stock", "ours", "kept", *(("workers",) if options.workers else ())):
            into, cache = Path(folder) / side, {"XDG_CACHE_HOME": f"{folder}/cache"}
            command = [sys.executable, __file__, *sys.argv[1:], "--part", side, "--into", into]
            subprocess.run(command, check=True, env=os.environ | cache)
            sides[side] = json.loads(into.read_text())
    if len({found["said"] for found in sides.values()}) > 1:
        raise SystemExit("the engines did not answer the same")
    show(sides, options)


def show(sides: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    table = Table("", *(f"{name}, ms" for name in sides), "stock / ours")
    for name in MEASURES:
        row = {side: median(found["times"][name]) for side, found in sides.items()}
        table.add_row(name, *map(shown, row.values()), f"{shown(row['stock'] / row['ours'])}x")
    console = Console(highlight=False)
    head = f"{options.games} games, depth {DEPTH}, medians of CPU milliseconds (workers: wall clock); same answers"
    console.print(head, soft_wrap=True)
    console.print(table)


def demonstrations(options: argparse.Namespace) -> None:
    """Play demonstrations in several ways and print what each took."""
    table = Table("processes", "translations kept", "CPU seconds", "seconds")
    files: set[bytes] = set()
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, options.processes):
            for kept in (False, True):
                out = Path(folder) / f"{processes}.jsonl"
                command = [sys.executable, "-m", "spark_rl", "demos", "alfworld", "--recipe", "alfworld-tiny", "--yes"]
                command += ["--count", str(options.demonstrations), "--processes", str(processes), "--out", str(out)]
                command += ["--env.games", "generated" if options.generated else "official", "--env.data", options.data]
                before, begun = os.times(), time.perf_counter()
                cache = {"XDG_CACHE_HOME": f"{folder}/cache {processes}"}
                subprocess.run(command, check=True, env=os.environ | cache, stdout=subprocess.DEVNULL)
                after = os.times()
                spent = after.children_user + after.children_system - before.children_user - before.children_system
                table.add_row(str(processes), str(kept), f"{spent:.1f}", f"{time.perf_counter() - begun:.1f}")
                files.add(out.read_bytes())
    if len(files) > 1:
        raise SystemExit("the demonstrations differ")
    console = Console(highlight=False)
    console.print(f"{options.demonstrations} demonstrations of alfworld-tiny, equal in all rows", soft_wrap=True)
    console.print(table)


def phases(run: Path) -> None:
    """Print the mean seconds of each phase of a run's iterations."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    whole = fmean(row["seconds"] for row in rows)
    table = Table("phase", "seconds", "share")
    for name in [name for name in rows[0] if name.startswith("seconds_")]:
        mean = fmean(row.get(name, 0.0) for row in rows)
        table.add_row(name.removeprefix("seconds_"), f"{mean:.2f}", f"{mean / whole:.0%}")
    console = Console(highlight=False)
    console.print(f"{len(rows)} iterations, {whole:.1f} s each in the mean", soft_wrap=True)
    console.print(table)


def shown(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
