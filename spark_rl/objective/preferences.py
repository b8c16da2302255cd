"""Settings of preference learning, by which a policy learns from its failures. The command line holds them without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from spark_rl.errors import UsageError, at_least

__all__ = ["Preferences"]


@dataclass(frozen=True)
class Preferences:
    """Exploration-based trajectory optimisation (ETO, arXiv 2403.02502): play, pair failures with successes, train by DPO.

    Where the paper gives no value, the default is that of its released scripts. The scripts play three iterations, the later
    ones with beta 0.5 and half the learning rate.
    """

    iterations: int = 1
    """How many times the current policy plays and is then trained."""
    tasks: int = 0
    """Training tasks that are played in an iteration; 0: all tasks that can give a pair."""
    episodes: int = 1
    """Episodes that are played of each task."""
    winner: Literal["demonstrated", "own"] = "demonstrated"
    """The success that a failure is paired with: the task's demonstration, or one of the policy's own episodes of the task
    (needs `episodes` of 2 or more)."""
    beta: float = 0.1
    """How strongly DPO holds the policy to the reference policy, which is the one that played."""
    learning_rate: float = 1e-6
    """Learning rate of AdamW, constant after the warm-up."""
    epochs: int = 3
    batch: int = 32
    """Pairs in an optimiser step."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises."""

    def __post_init__(self) -> None:
        at_least("", self, iterations=1, tasks=0, episodes=1, epochs=1, batch=1, warmup=0)
        if not self.beta > 0:
            raise UsageError(f"beta is {self.beta}: it must be above 0")
        if self.winner == "own" and self.episodes < 2:
            raise UsageError(
                f"winner is own and episodes {self.episodes}: one episode cannot both win and lose a task, so give "
                "--episodes 2 or more"
            )

    def words(self) -> list[str]:
        """The settings as options of `spark-rl eto`."""
        return [word for name, value in asdict(self).items() for word in (f"--{name.replace('_', '-')}", str(value))]
