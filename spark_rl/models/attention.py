"""Attention of one's own in a model of `transformers`, through the library's AttentionInterface.

Invariant: after the block, a model has the attention that it had before.

A function is registered under a name (`AttentionInterface.register`). It replaces plain attention alone: a layer that wants
more of it hands over an option that is named in `peculiarity`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from spark_rl.contracts import LanguageModel

__all__ = ["attending_by", "peculiarity"]


def peculiarity(options: Mapping[str, object]) -> str:
    """What a layer wants of its attention beside the plain one, by the options of its call; empty if nothing."""
    names = ("sliding_window", "softcap", "s_aux", "position_bias", "head_mask")
    return next((name for name in names if options.get(name) is not None), "")


@contextmanager
def attending_by(name: str, *models: LanguageModel) -> Generator[None]:
    """Within the block, the models' attention is the registered function of this name."""
    # The library has a method that sets the implementation, but only a private name that tells which is set.
    before = [str(getattr(model.config, "_attn_implementation", None)) for model in models]
    try:
        for model in models:
            model.set_attn_implementation(name)
        yield
    finally:
        for model, own in zip(models, before, strict=True):
            if own != name:
                model.set_attn_implementation(own)
