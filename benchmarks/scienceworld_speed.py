"""ScienceWorld: step against the engine's own Python wrapper, fork against load and replay, and memory, on the same actions.

    python benchmarks/scienceworld_speed.py [--tasks 8] [--worlds 200]

Wall-clock milliseconds, medians, one Java process at a time. Both sides follow the same random walk of known actions, one
task after another; how many of their texts are equal is printed. The wrapper's only way to fork is to load the task again
and take the actions once more; ours is also measured that way. Memory is the heap in use after a collection, and what the
process holds.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from spark_rl.environments.scienceworld import ScienceWorld, ScienceWorldEnvironment
from spark_rl.environments.scienceworld.catalogue import KINDS, named
from spark_rl.environments.scienceworld.jvm import machines
from spark_rl.types import Task

DEPTHS = (5, 15, 30)
Times = defaultdict[str, list[float]]


def timed(times: Times, name: str, what: Callable[[], Any]) -> Any:
    """The result, and its milliseconds into `times`."""
    start = time.perf_counter()
    result = what()
    times[name].append(1000 * (time.perf_counter() - start))
    return result


def plans(world: ScienceWorld, tasks: int) -> dict[str, list[str]]:
    """Random walks of known actions over types that are far apart in the list."""
    found: dict[str, list[str]] = {}
    for kind in KINDS[:: max(len(KINDS) // tasks, 1)][:tasks]:
        rng, env, task = random.Random(kind), world.make(), world.task(f"{kind}/0")
        observation, actions = env.reset(task), []
        while len(actions) < max(DEPTHS):
            action = rng.choice(observation.actions)
            if action.startswith(("focus", "reset", "eat")):  # would end the episode, or start it again
                continue
            observation = env.step(action)
            actions.append(action)
        found[task.id] = actions
    return found


def stock(plan: dict[str, list[str]]) -> tuple[Times, dict[str, list[str]]]:
    """The wrapper as it comes."""
    from scienceworld import ScienceWorldEnv

    times: Times = defaultdict(list)
    said: dict[str, list[str]] = {}
    env = ScienceWorldEnv("", envStepLimit=10_000)

    def start(task_id: str) -> str:
        kind, number = named(task_id)
        env.load(kind, number, "easy")
        return env.reset()[0]

    walked = next(iter(plan))
    start(walked)
    for action in plan[walked]:  # what Java compiles on the way is nobody's step
        env.step(action)
    for task_id, actions in plan.items():
        said[task_id] = [timed(times, "reset", lambda task_id=task_id: start(task_id))]
        for action in actions:
            said[task_id].append(timed(times, "step", lambda action=action: env.step(action))[0])
        for depth in DEPTHS:
            timed(times, f"fork at {depth}", lambda: (start(task_id), [env.step(action) for action in actions[:depth]]))  # noqa: B023
    env.close()
    return times, said


def ours(world: ScienceWorld, plan: dict[str, list[str]]) -> tuple[Times, dict[str, list[str]]]:
    """Our environment: what is asked for lazily is asked for apart."""
    times: Times = defaultdict(list)
    said: dict[str, list[str]] = {}

    def walk(env: ScienceWorldEnvironment, task: Task, actions: list[str]) -> None:
        env.reset(task)
        for action in actions:
            env.step(action)

    walked = next(iter(plan))
    walk(world.make(), world.task(walked), plan[walked])  # as on the other side
    for task_id, actions in plan.items():
        env, task = world.make(), world.task(task_id)
        said[task_id] = [timed(times, "reset", lambda: env.reset(task)).text]  # noqa: B023
        timed(times, "reset again", lambda: world.make().reset(task))  # noqa: B023
        for depth, action in enumerate(actions, start=1):
            observation = timed(times, "step", lambda: env.step(action))  # noqa: B023
            said[task_id].append(observation.text)
            timed(times, "all actions", lambda: observation.actions)  # noqa: B023
            timed(times, "lines of a prompt", lambda: observation.shown)  # noqa: B023
            if depth in DEPTHS:
                for _ in range(5):
                    timed(times, f"fork at {depth}", env.fork)
                prefix = actions[:depth]
                timed(times, f"replay to {depth}", lambda: walk(world.make(), task, prefix))  # noqa: B023
    return times, said


def memory(world: ScienceWorld, worlds: int) -> list[tuple[str, str]]:
    """Megabytes of a process with many worlds."""
    roomy = replace(world, heap=1024)
    task = roomy.task("boil/0")
    env = roomy.make()
    env.reset(task)
    for action in ("teleport to kitchen", "open cupboard"):
        env.step(action)
    [machine] = machines(roomy.engines().launch, 1)

    def heap() -> float:
        with machine.lock:
            return int(machine.ask("memory")[0]) / 2**20

    empty = heap()
    kept = [env.fork() for _ in range(worlds)]
    each = (heap() - empty) / worlds
    resident = int(Path(f"/proc/{machine.pid}/statm").read_text().split()[1]) * 4096 / 2**20
    del kept
    return [
        ("heap of a process with one world, MB", f"{empty:.0f}"),
        ("heap of each further world, MB", f"{each:.2f}"),
        (f"resident with {worlds} worlds, MB", f"{resident:.0f}"),
        ("worlds that a heap of 1 GB holds", f"{(1024 - empty) / each:,.0f}"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8, help="how many types of task")
    parser.add_argument("--worlds", type=int, default=200, help="worlds held at once when memory is measured")
    options = parser.parse_args()
    world = ScienceWorld().unlimited()
    plan = plans(replace(world, heap=511), options.tasks)  # in another process, which has then met all tasks
    mine, said = ours(world, plan)
    theirs, told = stock(plan)
    same = sum(one == other for task_id in plan for one, other in zip(said[task_id], told[task_id], strict=True))
    total = sum(map(len, told.values()))
    console = Console(highlight=False)
    console.print(
        f"{len(plan)} tasks, {max(DEPTHS)} steps, medians of milliseconds; {same} of {total} texts equal", soft_wrap=True
    )
    table = Table("", "stock, ms", "spark-rl, ms", "stock / ours")
    for name in mine:
        here, there = median(mine[name]), median(theirs[name]) if name in theirs else None
        stock_side = ("", "") if there is None else (shown(there), f"{shown(there / here)}x")
        table.add_row(name, stock_side[0], shown(here), stock_side[1])
    console.print(table)
    for name, value in memory(world, options.worlds):
        console.print(f"{name}: {value}", soft_wrap=True)


def shown(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
