"""Trees that wait for nobody against trees that wait for the slowest: one policy, the same forests.

    python benchmarks/pace.py [--trees 16] [--mean 0.02] [--seeds 5]

The policy acts at random and answers each call after a time of its own, drawn from an exponential distribution, as a busy
server does. In rounds all open steps of a forest are one call, which takes as long as its slowest request; at their own pace
each tree makes its own calls. Both forests are compared and must be equal. Times are seconds of waiting, so the ratio holds
on any machine that is not overloaded.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.contracts import Growth
from spark_rl.environments.household import Household
from spark_rl.policies.scripted import RandomActions
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Completion, Forest, Request, Sampling, TreeShape


@dataclass
class Server(RandomActions):
    """Random actions after random times."""

    mean: float = 0.02
    """Mean seconds of a request."""
    in_rounds: bool = field(default=False, kw_only=True)

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """After the time of the slowest request."""
        times = [random.Random(seed).expovariate(1 / self.mean) for request in requests for seed in request.seeds]
        await asyncio.sleep(max(times))
        return await super().sample(requests)


def grown(server: Server, trees: int, seed: int) -> tuple[Forest, float]:
    """A forest and the seconds that it took."""
    world = Household()
    growth = Growth(TreeShape(budget=8, roots=4, horizon=20), ExploreTag(), Prompt(instructions="none"), Sampling())
    start = time.perf_counter()
    forest = asyncio.run(grow_forest(world.tasks("L0", "train")[:trees], world, server, growth, seed=seed))
    return forest, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=16)
    parser.add_argument("--mean", type=float, default=0.02)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    print("| seed | rounds, s | own pace, s | ratio |\n|---|---|---|---|")
    ratios: list[float] = []
    for seed in range(args.seeds):
        (together, rounds), (apart, own) = (
            grown(Server(mean=args.mean, in_rounds=in_rounds), args.trees, seed) for in_rounds in (True, False)
        )
        if apart != together:
            raise SystemExit(f"seed {seed}: the forest depends on the pace")
        ratios.append(own / rounds)
        print(f"| {seed} | {rounds:.2f} | {own:.2f} | {ratios[-1]:.2f} |")
    print(f"\nmedian ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
