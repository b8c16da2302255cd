# pyright: standard
"""Models and tokenizers: learnt from nothing, loaded, saved.

Invariants
----------
* What is saved loads with `AutoTokenizer` and `AutoModelForCausalLM` alone, without this package.
* A learnt tokenizer is lossless: `decode(encode(text)) == text` for any text, white space and rare characters included.
* Tags and control tokens are always one token, so the ids of two texts joined at one are the texts' ids joined.

A learnt tokenizer is a unigram model over bytes: 256 byte entries below, the pieces of `vocabulary.learn_pieces` above,
and the segmentation with the fewest tokens wins. Its chat template is ChatML without a default system turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from spark_rl.errors import StorageError, UsageError
from spark_rl.files import atomic_directory
from spark_rl.fresh import FreshModel
from spark_rl.vocabulary import learn_pieces

__all__ = [
    "CHAT_TEMPLATE",
    "FreshModel",
    "learn_tokenizer",
    "load_model",
    "load_tokenizer",
    "new_model",
    "save_pretrained_atomically",
]

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
TAGS = ("<explore>", "</explore>", "<think>", "</think>", "<action>", "</action>")
HEADERS = ("system\n", "user\n", "assistant\n")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def learn_tokenizer(texts: Iterable[str], *, vocabulary: int = 1024, min_count: int = 5) -> PreTrainedTokenizerFast:
    """A tokenizer for a world, learnt from what is read and written there.

    Args:
        texts: observations, prompts and answers; a text seen often counts often.
        vocabulary: most entries, the 256 bytes and the control tokens included.
        min_count: names, words and phrases used less often get no entry.
    """
    alphabet = sorted(_BYTES.alphabet())
    room = vocabulary - len(alphabet) - len(HEADERS) - len(TAGS) - len((START, END, PAD))
    if room < 0:
        raise UsageError(f"model.vocabulary is {vocabulary}: bytes, tags and control tokens alone need {vocabulary - room}")
    pieces = learn_pieces(texts, room=room, min_count=min_count, barriers=(START, END, PAD, *TAGS))
    pieces = [*HEADERS, *(piece for piece in pieces if piece not in HEADERS)]
    # Every entry costs 1, so the fewest tokens win; the earlier (more frequent) piece wins a tie.
    costs = {_visible(piece): -1 - 1e-6 * rank for rank, piece in enumerate(pieces)}
    costs |= dict.fromkeys(alphabet, -1.5)
    tokenizer = Tokenizer(models.Unigram(list(costs.items()), None, False))
    tokenizer.pre_tokenizer = _BYTES
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (START, END, PAD)])
    # Tags are ordinary text to a reader: decoding keeps them when control tokens are skipped.
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _visible(piece: str) -> str:
    """The piece in the byte-level alphabet, where a space is a letter."""
    return "".join(part for part, _ in _BYTES.pre_tokenize_str(piece))


def new_model(tokenizer: Any, size: FreshModel, seed: int) -> Qwen2ForCausalLM:
    """A model with random weights that depend on the seed alone; float32, on the CPU."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=size.context,
        tie_word_embeddings=size.tie_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)  # attention is sdpa by default
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return model.eval()


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer of a model directory or hub name; a directory never touches the network.

    Raises:
        UsageError: there is none, or it has no chat template.
    """
    local = _check(name)
    try:
        tokenizer = cast(Any, AutoTokenizer).from_pretrained(name, local_files_only=local)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f'model "{name}" has no tokenizer that can be loaded; save one beside the weights') from error
    if not tokenizer.chat_template:
        raise UsageError(f'the tokenizer of model "{name}" has no chat template; use an instruction-tuned model, or add one')
    if tokenizer.eos_token_id is None:
        raise UsageError(f'the tokenizer of model "{name}" has no end-of-sequence token; set eos_token in its configuration')
    return tokenizer


def load_model(name: str | Path, *, device: str = "auto", dtype: str | torch.dtype = "auto") -> PreTrainedModel:
    """The causal language model of a directory or hub name, ready to generate; a directory never touches the network.

    Args:
        name: directory or hub name.
        device: `auto` takes CUDA when there is one.
        dtype: `auto` keeps the saved one.

    Raises:
        UsageError: there is no such model, or the device cannot hold it.
    """
    local = _check(name)
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        model = cast(Any, AutoModelForCausalLM).from_pretrained(name, dtype=dtype, local_files_only=local)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f'model "{name}" cannot be loaded as a causal language model: {reason}') from error
    try:
        return model.to(place).eval()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f'device "{place}" cannot hold model "{name}": {str(error).partition(chr(10))[0]}') from error


def _check(name: str | Path) -> bool:
    """Whether the name is a directory; refuses what is neither a model directory nor a possible hub name."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f'model "{name}" is a directory without config.json; give one written by save_pretrained')
        return True
    if isinstance(name, Path) or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise UsageError(f'model "{name}" does not exist; give a model directory or a hub name')
    return False


def save_pretrained_atomically(model: PreTrainedModel, tokenizer: Any, directory: str | Path) -> None:
    """Write weights (safetensors), configuration and tokenizer; the directory appears whole or not at all.

    Raises:
        StorageError: it cannot be written; nothing half-written is left.
    """
    path = Path(directory)
    with atomic_directory(path) as work:
        try:
            model.save_pretrained(work)
        except SafetensorError as error:  # how the writer reports a full disk
            raise StorageError(f"{path} could not be written ({error}); free some space or choose another --out") from error
        tokenizer.save_pretrained(work)
