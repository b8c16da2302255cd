"""A model in training, as a process holds it: all of it, or a share (`sharding.Shared`).

Invariant: `whole` can be sampled from and saved, and `model` is what learns. In one process they are the same model.
"""

from __future__ import annotations

from torch.optim import Optimizer

from spark_rl.contracts import LanguageModel, ModelState
from spark_rl.learning.optimizer import adamw

__all__ = ["Held"]


class Held:
    """A model that one process trains."""

    def __init__(self, model: LanguageModel, *, lr: float, weight_decay: float) -> None:
        """A model with its optimiser."""
        self.model = self.whole = model
        self.optimizer: Optimizer = adamw(model, lr=lr, weight_decay=weight_decay)

    def weights(self) -> ModelState:
        """All weights by name; not copied."""
        return self.model.state_dict()

    def collect(self) -> None:
        """Bring what was learnt into the whole model."""

    def spread(self) -> None:
        """Bring the weights of the whole model into the one that learns."""

    def frozen(self, model: LanguageModel) -> LanguageModel:
        """A model that only reads, held as this one is."""
        return model
