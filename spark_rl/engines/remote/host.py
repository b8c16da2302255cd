"""Where a model runs that is trained here: the contract of a process or a server that answers with token ids.

Invariant: an answer's log-probabilities are those of the distribution that the token was drawn from, at its temperature.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spark_rl.contracts import ModelState

__all__ = ["Answer", "Dead", "Host", "Launch", "Model"]


class Dead(Exception):
    """The host's process died, hung, or was stopped. It may be started again."""


@dataclass(frozen=True)
class Answer:
    """What a host answered to one request."""

    ids: tuple[int, ...]
    """The sampled tokens, the end of the turn included."""
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...] | None = None
    """Entropies (nats) of the distributions that the tokens were drawn from; None where the host does not tell."""
    cached: int = 0
    """Prompt tokens whose keys and values were in the cache."""
    preempted: int = 0
    """How often the request lost its keys and values for want of room, and was read again."""
    queued: float = 0.0
    """Seconds from its arrival until it ran."""


@dataclass(frozen=True)
class Model:
    """The model that a host is started with."""

    name: Path | str
    """Its folder or hub name."""
    dtype: str
    """Precision of weights, keys and values."""
    longest: int | None
    """Most tokens that the model itself can read, where it says so."""
    empty: bool
    """Whether the folder has no weights, so that they come by `Host.load`."""
    rank: int
    """Rank of the adapters that come by `Host.load_adapters`; 0: none come."""
    cuda: bool
    """Whether the learner's copy is on a GPU."""
    exchange: Path
    """Folder for files that learner and host share."""


class Host(Protocol):
    """A model that runs in another process."""

    context: int
    """Most tokens of a prompt and its completion."""
    based: bool
    """Whether the host has the weights that adapters belong to."""

    async def ask(
        self,
        prompt: Sequence[int],
        *,
        seed: int,
        temperature: float,
        most: int,
        stops: Collection[int],
        salt: str,
        name: str,
    ) -> Answer:
        """One completion.

        Args:
            prompt: token ids.
            seed: decides what is drawn, with the prompt and the weights.
            temperature: 0 takes the likeliest token.
            most: most tokens to sample.
            stops: ids that end the completion, and belong to it.
            salt: prompts share cached keys and values only with those of the same salt.
            name: a name that no other request has.

        Raises:
            Dead: the process died.
            PolicyFailure: the host answered without token ids or log-probabilities, or cannot be reached.
        """
        ...

    async def load(self, state: ModelState) -> None:
        """Take new weights; wakes up if it sleeps.

        Raises:
            Dead: the process died.
            PolicyFailure: the weights are of another model, or the host takes none.
        """
        ...

    async def load_adapters(self, folder: Path) -> None:
        """Take adapters in the format of `peft`, in the place of earlier ones; wakes up if it sleeps.

        Raises:
            Dead: the process died.
            PolicyFailure: the adapters are of another model, or the host takes none.
        """
        ...

    async def rest(self) -> bool:
        """Free memory that a learner on the same device can use, if the host can.

        Returns:
            Whether the weights are gone, and have to be loaded again.
        """
        ...

    async def wake(self) -> None:
        """Be ready to answer after `rest`."""
        ...

    def stop(self) -> None:
        """End what was started."""
        ...


Launch = Callable[[Model], Awaitable[Host]]
"""Starts a host."""
