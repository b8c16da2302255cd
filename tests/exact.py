"""A transformers model all of whose parts compute in its own precision, for comparisons in 64 bits."""

from __future__ import annotations

from typing import Any

import torch
from grown import VOCABULARY
from transformers import Qwen2Config, Qwen2ForCausalLM

__all__ = ["model"]


def model(seed: int = 0, dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> Any:
    """A model of two layers with weights of the seed."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attention_dropout=dropout,
        initializer_range=0.3,
    )
    made: Any = Qwen2ForCausalLM(config)
    for layer in made.model.layers:  # the library's own norm rounds to 32 bits, whatever the model's precision
        layer.input_layernorm = torch.nn.RMSNorm(16, config.rms_norm_eps)
        layer.post_attention_layernorm = torch.nn.RMSNorm(16, config.rms_norm_eps)
    made.model.norm = torch.nn.RMSNorm(16, config.rms_norm_eps)
    return made.to(dtype=dtype)
