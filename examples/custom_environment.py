"""A world of your own: find the coin under one of three cups. Run this file to see that it keeps the contract.

Wherever the command line takes the name of an environment, it takes `custom_environment:Cups` as well, when this folder
is on the PYTHONPATH.
"""

import copy
import random
from dataclasses import dataclass
from typing import Literal

from spark_rl.environments.check import check_world
from spark_rl.errors import UsageError
from spark_rl.types import Observation, Task

COLOURS = ("red", "green", "blue")
ACTIONS = tuple(f"lift {colour}" for colour in COLOURS)


class CupGame:
    fork_cost: Literal["cheap", "replay"] = "cheap"  # a copy of the state is all that a fork takes

    def reset(self, task: Task) -> Observation:
        self.coin, self.seen = task.data["coin"], "You see a red, a green and a blue cup."
        return self._observe()

    def step(self, action: str) -> Observation:
        if action not in ACTIONS:
            return Observation("Nothing happens.", ACTIONS, admissible=False)
        won = action == f"lift {self.coin}"
        self.seen = f"Under the {action.removeprefix('lift ')} cup is {'the coin!' if won else 'nothing.'}"
        return self._observe(won)

    def fork(self) -> "CupGame":
        return copy.copy(self)

    def state_key(self) -> str:
        return self.seen

    def close(self) -> None: ...

    def _observe(self, won: bool = False) -> Observation:
        return Observation(self.seen, ACTIONS, reward=float(won), done=won, success=won)


@dataclass(frozen=True)
class Cups:
    name: str = "custom_environment:Cups"

    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        if level != "L0" or split not in ("train", "dev", "test"):
            raise UsageError(
                f'the cups have no tasks for level "{level}" and split "{split}": use L0 and train, dev or test'
            )
        coins = [random.Random(f"{split}{number}").choice(COLOURS) for number in range(20)]
        return tuple(Task(self.name, f"{split}/{i}", "find the coin", data={"coin": coin}) for i, coin in enumerate(coins))

    def make(self) -> CupGame:
        return CupGame()


if __name__ == "__main__":
    report = check_world(Cups())
    print(report)
    raise SystemExit(not report.passed)
