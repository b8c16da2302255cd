# pyright: standard
"""Models and tokenizers: learnt from nothing, loaded, saved.

Invariants
----------
* What is saved loads with `AutoTokenizer` and `AutoModelForCausalLM` alone, without this package.
* A learnt tokenizer is lossless: `decode(encode(text)) == text` for any text, white space and rare characters included.
* Tags and control tokens are always one token, so the ids of two texts joined at one are the texts' ids joined.

A learnt tokenizer has 256 byte entries, and above them the pieces of `vocabulary.learn_pieces` as added tokens: the text
is cut at the leftmost longest pieces, and what lies between falls back to bytes. Its chat template is ChatML without a
default system turn.

Added tokens rather than a unigram model or merges, because `AutoTokenizer` rebuilds the tokenizer of any Qwen2 model from
its vocabulary and merges, as Qwen2's own: added tokens survive that. (It also adds Unicode normalisation, which
`load_tokenizer` does not.)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
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
from transformers.utils import logging

from spark_rl import adapters
from spark_rl.errors import UsageError
from spark_rl.files import atomic_directory, unwritable
from spark_rl.fresh import FreshModel
from spark_rl.prompting import Prompt
from spark_rl.vocabulary import learn_pieces

__all__ = [
    "CHAT_TEMPLATE",
    "FreshModel",
    "fresh_config",
    "learn_tokenizer",
    "load_model",
    "load_tokenizer",
    "model_directory",
    "new_model",
    "save_pretrained_atomically",
]

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
TOKENIZER_FILES = ("tokenizer.*", "vocab.*", "*.model", "*.tiktoken", "tekken.json")
TAGS = Prompt().tags
HEADERS = ("system\n", "user\n", "assistant\n")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def learn_tokenizer(
    texts: Iterable[str], *, vocabulary: int = 1024, min_count: int = 5, tags: Sequence[str] = TAGS
) -> PreTrainedTokenizerFast:
    """A tokenizer for a world, learnt from what is read and written there.

    Args:
        texts: observations, prompts and answers; a text seen often counts often.
        vocabulary: most entries, the 256 bytes and the control tokens included.
        min_count: names, words and phrases used less often get no entry.
        tags: kept whole, an entry each (`Prompt.tags`).
    """
    alphabet = sorted(_BYTES.alphabet())
    room = vocabulary - len(alphabet) - len(HEADERS) - len(tags) - len((START, END, PAD))
    if room < 0:
        raise UsageError(f"model.vocabulary is {vocabulary}: bytes, tags and control tokens alone need {vocabulary - room}")
    pieces = learn_pieces(texts, room=room, min_count=min_count, barriers=(START, END, PAD, *tags))
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = _BYTES, decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (START, END, PAD)])
    # Tags are ordinary text to a reader: decoding keeps them when control tokens are skipped.
    words = [*tags, *HEADERS, *(piece for piece in pieces if piece.isascii() or not set(piece) <= set(alphabet))]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in words])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def new_model(tokenizer: Any, size: FreshModel, seed: int) -> Qwen2ForCausalLM:
    """A model with random weights that depend on the seed alone; float32, on the CPU."""
    config = fresh_config(size, len(tokenizer))
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)  # attention is sdpa by default
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return model.eval()


def fresh_config(size: FreshModel, vocabulary: int) -> Qwen2Config:
    """The configuration of a model from nothing, but for its control tokens."""
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


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer of a model directory or hub name; a directory never touches the network.

    Raises:
        UsageError: there is none, or it has no chat template.
    """
    local = _check(name)
    # Without files, AutoTokenizer may answer with an empty tokenizer instead of an error.
    found = not local or any(file for pattern in TOKENIZER_FILES for file in Path(name).glob(pattern))
    try:
        if not found:
            raise FileNotFoundError
        kind: Any = PreTrainedTokenizerFast if local and _is_generic(Path(name)) else AutoTokenizer
        tokenizer = kind.from_pretrained(name, local_files_only=local)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f'model "{name}" has no tokenizer that can be loaded; save one beside the weights') from error
    if not tokenizer.chat_template:
        raise UsageError(f'the tokenizer of model "{name}" has no chat template; use an instruction-tuned model, or add one')
    if tokenizer.eos_token_id is None:
        raise UsageError(f'the tokenizer of model "{name}" has no end-of-sequence token; set eos_token in its configuration')
    return tokenizer


def _is_generic(directory: Path) -> bool:
    """Whether the tokenizer says that its file is all there is to it, as a learnt one does."""
    config = directory / "tokenizer_config.json"
    kind = json.loads(config.read_text()).get("tokenizer_class") if config.is_file() else None
    return kind in ("TokenizersBackend", "PreTrainedTokenizerFast")


def load_model(name: str | Path, *, device: str = "auto", dtype: str | torch.dtype = "auto") -> PreTrainedModel:
    """The causal language model of a directory or hub name, ready to generate; a directory never touches the network.

    A directory of adapters gives their model with the adapters in it, not merged, since that would round them.

    Args:
        name: directory or hub name.
        device: `auto` takes CUDA when there is one.
        dtype: `auto` keeps the saved one. Attention is the library's choice: sdpa wherever the architecture has it.

    Raises:
        UsageError: there is no such model, or the device cannot hold it.
    """
    local = _check(name)
    if local and adapters.holds_adapters(Path(name)):
        return adapters.load(load_model(adapters.base_of(Path(name)), device=device, dtype=dtype), Path(name))
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        with _quiet():
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
        if not (path / "config.json").is_file() and not adapters.holds_adapters(path):
            raise UsageError(f'model "{name}" is a directory without config.json; give one written by save_pretrained')
        return True
    if isinstance(name, Path) or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise UsageError(f'model "{name}" does not exist; give a model directory or a hub name')
    return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars, which would break up our own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def model_directory(path: Path, model: PreTrainedModel, tokenizer: Any) -> Iterator[Path]:
    """A folder with weights (safetensors), configuration and tokenizer, to add to; it appears as `path` whole or not at all.

    Of a model with adapters the folder holds the adapters alone.

    Raises:
        StorageError: it cannot be written; nothing half-written is left.
    """
    with atomic_directory(path) as work, _quiet():
        try:
            if adapters.present(model):
                adapters.save(model, work)
            else:
                model.save_pretrained(work)
            tokenizer.save_pretrained(work)
            yield work
        except Exception as error:
            # A full disk is a SafetensorError to safetensors, a RuntimeError to torch, and to tokenizers a bare Exception.
            if isinstance(error, SafetensorError | RuntimeError) or type(error) is Exception:
                raise unwritable(path, error) from error
            raise


def save_pretrained_atomically(model: PreTrainedModel, tokenizer: Any, directory: str | Path) -> None:
    """Write weights, configuration and tokenizer; see `model_directory`."""
    with model_directory(Path(directory), model, tokenizer):
        pass
