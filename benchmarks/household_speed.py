"""The household world: speed of steps and forks, how the expert does, and what chance achieves.

    python benchmarks/household_speed.py [--preset hard] [--tasks 120]

Speed is of one thread, in CPU seconds, over replayed expert episodes, with and without the lists of admissible actions.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from spark_rl.common.seeding import derive
from spark_rl.contracts import Policy
from spark_rl.environments.household import Household
from spark_rl.policies.scripted import RandomActions
from spark_rl.prompting.parsing import parse
from spark_rl.types import Observation, Request, Task

HORIZON = 30


def play(world: Household, task: Task, policy: Policy) -> tuple[bool, list[tuple[str, Observation]]]:
    """An episode: whether it was won, and its completions with what they led to."""
    environment = world.make()
    observation, history, steps = environment.reset(task), list[str](), list[tuple[str, Observation]]()
    while not observation.done and len(history) < HORIZON:
        request = Request(task, (), observation, (derive(task.id, len(history)),), history=tuple(history))
        [[completion]] = asyncio.run(policy.sample([request]))
        history.append(parse(completion.text).action)
        observation = environment.step(history[-1])
        steps.append((completion.text, observation))
    return observation.success, steps


def speed(what: Callable[[], int]) -> float:
    """How many a CPU second, over about a second."""
    start, done = time.process_time(), 0
    while time.process_time() - start < 1.0:
        done += what()
    return done / (time.process_time() - start)


@dataclass
class Survey:
    """What is counted over the expert's episodes."""

    words: Counter[str] = field(default_factory=Counter)
    entities: set[str] = field(default_factory=set)
    lengths: list[int] = field(default_factory=list)
    tagged: Counter[int] = field(default_factory=Counter)
    taken: Counter[int] = field(default_factory=Counter)
    episodes: list[tuple[Task, list[str]]] = field(default_factory=list)

    def add(self, task: Task, first: str, steps: list[tuple[str, Observation]]) -> None:
        """Count an episode; `first` is the first observation."""
        for i, (said, _) in enumerate(steps):
            self.taken[i // 5] += 1
            self.tagged[i // 5] += parse(said).mode == "explore"
        for text in (task.instruction, first, *(part for said, seen in steps for part in (said, seen.text))):
            self.entities.update(re.findall(r"[a-z]+ \d+", text))
            self.words.update(re.findall(r"[A-Za-z]+", text))
        self.lengths += [len(seen.text.split()) for _, seen in steps]
        self.episodes.append((task, [parse(text).action for text, _ in steps]))

    def __str__(self) -> str:
        shares = ", ".join(f"{5 * i + 1}-{5 * i + 5}: {self.tagged[i] / self.taken[i]:.2f}" for i in sorted(self.taken))
        return (
            f"explore share by step  {shares}\n"
            f"words of an observation  median {sorted(self.lengths)[len(self.lengths) // 2]}, most {max(self.lengths)}\n"
            f"distinct words {len(self.words)}, entities {len(self.entities)}"
        )


def survey(world: Household) -> tuple[Table, Survey]:
    """The expert and chance on all test tasks."""
    expert, found = world.expert(), Survey()
    table = Table("level", "type", "expert wins", "steps", "median", "longest", "explore", "random wins")
    for level in ("L0", "L1", "L2"):
        rows: dict[str, list[tuple[bool, int, int, bool]]] = defaultdict(list)
        for task in world.tasks(level, "test"):
            won, steps = play(world, task, expert)
            lucky, _ = play(world, task, RandomActions())
            explored = sum(parse(text).mode == "explore" for text, _ in steps)
            for kind in (task.kind, "all"):
                rows[kind].append((won, len(steps), explored, lucky))
            found.add(task, world.make().reset(task).text, steps)
        for kind, row in sorted(rows.items(), key=lambda item: item[0] == "all"):
            wins, lengths, explored, lucky = (list(column) for column in zip(*row, strict=True))
            lengths.sort()
            table.add_row(
                level,
                kind,
                f"{sum(wins)}/{len(row)}",
                f"{sum(lengths) / len(row):.1f}",
                str(lengths[len(row) // 2]),
                str(lengths[-1]),
                f"{sum(explored) / sum(lengths):.2f}",
                f"{sum(lucky) / len(row):.2f}",
            )
    return table, found


def replayed(world: Household, episodes: list[tuple[Task, list[str]]], ask: bool) -> int:
    """Play recorded episodes again; how many steps that took."""
    environment = world.make()
    for task, actions in episodes:
        environment.reset(task)
        for action in actions:
            observation = environment.step(action)
            if ask:
                _ = observation.actions
    return sum(len(actions) for _, actions in episodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("standard", "hard"), default="standard")
    parser.add_argument("--tasks", type=int, default=120, help="test tasks of each level")
    options = parser.parse_args()
    world, console = Household(preset=options.preset, test_tasks=options.tasks), Console(highlight=False)
    table, found = survey(world)
    console.print(table)
    console.print(str(found), soft_wrap=True)
    some, environment = found.episodes[:50], world.make()
    without, listed = (speed(lambda ask=ask: replayed(world, some, ask)) for ask in (False, True))
    console.print(f"steps a second  {without:,.0f}, with lists {listed:,.0f}")
    console.print(f"forks a second  {speed(lambda: sum(bool(environment.fork()) for _ in range(1000))):,.0f}")


if __name__ == "__main__":
    main()
