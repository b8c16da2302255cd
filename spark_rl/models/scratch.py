"""The size of a model that is trained from scratch. Plain settings, so that recipes can hold them without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from spark_rl.errors import UsageError

__all__ = ["ScratchModel"]


@dataclass(frozen=True)
class ScratchModel:
    """Size of a Qwen2-architecture model with random weights, and of the vocabulary that is learnt for it.

    Two CPU cores train a model of the default size (0.27 M parameters with 500 entries) in minutes.
    """

    vocabulary: int = 1024
    """Most entries of the learnt tokenizer; a world with few text templates needs fewer."""
    min_count: int = 5
    """Fewest occurrences of a name, word or phrase that gets an entry of its own."""
    hidden: int = 96
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    """Heads of keys and values; fewer heads make the cache smaller and generation faster."""
    intermediate: int = 288
    """Width of the feed-forward part."""
    context: int = 4096
    """Most tokens of prompt and completion together."""
    tie_embeddings: bool = True
    """Use one matrix for input and output embeddings."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) < 1 and field.name != "tie_embeddings":
                raise UsageError(f"model.{field.name} is {value}: it must be at least 1")
        if self.hidden % (2 * self.heads):
            raise UsageError(f"model.hidden is {self.hidden}: it must be a multiple of twice model.heads ({self.heads})")
        if self.heads % self.kv_heads:
            raise UsageError(f"model.heads is {self.heads}: it must be a multiple of model.kv_heads ({self.kv_heads})")
