"""How a policy learns from its failures: plain settings, so that the command line needs no torch to hold them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from spark_rl.errors import UsageError, at_least

__all__ = ["Preferences"]


@dataclass(frozen=True)
class Preferences:
    """Exploration-based trajectory optimisation (ETO, arXiv 2403.02502): play, pair failures with successes, learn by DPO.

    Where the paper is silent its released scripts are followed. They play three iterations, the later ones with
    beta 0.5 and half the learning rate.
    """

    iterations: int = 1
    """Times that the policy, as it then is, plays and learns."""
    tasks: int = 0
    """Training tasks played an iteration; 0: all that can make a pair."""
    episodes: int = 1
    """Episodes of each of them."""
    winner: Literal["demonstrated", "own"] = "demonstrated"
    """Whose success a failure is paired with: the demonstration of the task, or a win of the policy's own among the
    episodes of the task (needs `episodes` of 2 or more)."""
    beta: float = 0.1
    """How strongly the policy is held to the one that played."""
    learning_rate: float = 1e-6
    """Of AdamW, constant after the warm-up."""
    epochs: int = 3
    batch: int = 32
    """Pairs of an optimiser step."""
    warmup: float = 0.1
    """Share of the steps with a rising learning rate."""

    def __post_init__(self) -> None:
        at_least("", self, iterations=1, tasks=0, episodes=1, epochs=1, batch=1, warmup=0)
        if not self.beta > 0:
            raise UsageError(f"beta is {self.beta}: it must be above 0")
        if self.winner == "own" and self.episodes < 2:
            raise UsageError(
                f"winner is own and episodes {self.episodes}: one episode does not both win and lose a task, so give "
                "--episodes 2 or more"
            )

    def words(self) -> list[str]:
        """The same as options of `spark-rl eto`."""
        return [word for name, value in asdict(self).items() for word in (f"--{name.replace('_', '-')}", str(value))]
