"""A model with random weights, of the size that a recipe asks for."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from spark_rl.contracts import Tokenizer
from spark_rl.models.scratch import ScratchModel

__all__ = ["new_model", "scratch_config"]


def new_model(tokenizer: Tokenizer, size: ScratchModel, seed: int) -> Qwen2ForCausalLM:
    """A model with random weights that depend on the seed alone; float32, on the CPU."""
    config = scratch_config(size, len(tokenizer))
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    # torch does not annotate all arguments of its random functions.
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        model = Qwen2ForCausalLM(config)  # attention is sdpa by default
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return model.eval()


def scratch_config(size: ScratchModel, vocabulary: int) -> Qwen2Config:
    """The configuration of a model from scratch, without its control tokens."""
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=size.context,
        tie_word_embeddings=size.tie_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
