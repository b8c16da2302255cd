"""Loading and saving models and tokenizers.

Invariant
---------
* `AutoTokenizer` and `AutoModelForCausalLM` alone can load a saved folder, without this package.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from spark_rl.common.files import atomic_directory, unwritable
from spark_rl.contracts import LanguageModel, ModelSource, Tokenizer
from spark_rl.errors import UsageError
from spark_rl.models import adapters
from spark_rl.models.threads import choose_threads

__all__ = ["device_of", "load_model", "load_pair", "load_tokenizer", "model_directory", "save_pretrained_atomically"]

TOKENIZER_FILES = ("tokenizer.*", "vocab.*", "*.model", "*.tiktoken", "tekken.json")


def load_tokenizer(name: str | Path) -> Tokenizer:
    """The tokenizer of a model directory or hub name; a directory never touches the network.

    Raises:
        UsageError: the model has no tokenizer, or its tokenizer has no chat template or no end-of-sequence token.
    """
    local = _check(name)
    # Without files, AutoTokenizer may return an empty tokenizer instead of raising an error.
    complete = not local or any(file for pattern in TOKENIZER_FILES for file in Path(name).glob(pattern))
    try:
        if not complete:
            raise FileNotFoundError
        kind: Any = PreTrainedTokenizerFast if local and _is_generic(Path(name)) else AutoTokenizer
        tokenizer: Tokenizer = kind.from_pretrained(name, local_files_only=local)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f'model "{name}" has no tokenizer that can be loaded; save one beside the weights') from error
    if not tokenizer.chat_template:
        raise UsageError(f'the tokenizer of model "{name}" has no chat template; use an instruction-tuned model, or add one')
    if cast("int | None", tokenizer.eos_token_id) is None:
        raise UsageError(f'the tokenizer of model "{name}" has no end-of-sequence token; set eos_token in its configuration')
    return tokenizer


def _is_generic(directory: Path) -> bool:
    """Whether the tokenizer's file defines it completely, as the configuration of a learnt tokenizer says."""
    config = directory / "tokenizer_config.json"
    kind = json.loads(config.read_text()).get("tokenizer_class") if config.is_file() else None
    return kind in ("TokenizersBackend", "PreTrainedTokenizerFast")


def load_model(name: str | Path, *, device: str = "auto", dtype: str | torch.dtype = "auto") -> PreTrainedModel:
    """The causal language model of a directory or hub name, ready to generate; a directory never touches the network.

    A directory of adapters gives the base model with the adapters in its layers. The adapters are not merged, since merging
    would round them. The library chooses the attention: sdpa wherever the architecture has it.

    Args:
        name: directory or hub name.
        device: `auto` takes CUDA when there is one.
        dtype: `auto` keeps the saved precision.

    Raises:
        UsageError: there is no such model, or the device cannot hold it.
    """
    local = _check(name)
    if local and adapters.holds_adapters(Path(name)):
        return adapters.load(load_model(adapters.base_of(Path(name)), device=device, dtype=dtype), Path(name))
    place = device_of(device)
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


def device_of(device: str) -> str:
    """The device that a setting means: `auto` is CUDA where there is a CUDA device."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _check(name: str | Path) -> bool:
    """Whether the name is a directory; refuses a name that is neither a model directory nor a possible hub name."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file() and not adapters.holds_adapters(path):
            raise UsageError(f'model "{name}" is a directory without config.json; give one written by save_pretrained')
        return True
    if isinstance(name, Path) or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise UsageError(f'model "{name}" does not exist; give a model directory or a hub name')
    return False


def load_pair(source: ModelSource) -> tuple[PreTrainedModel, Tokenizer]:
    """Model and tokenizer of a source; also sets the number of threads that the source asks for.

    Raises:
        UsageError: see `load_model` and `load_tokenizer`.
    """
    torch.set_num_threads(source.threads or choose_threads())
    tokenizer = load_tokenizer(source.name)
    return load_model(source.name, device=source.device, dtype=source.dtype), tokenizer


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Hide the library's progress bars, which would break up this package's own."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


@contextlib.contextmanager
def model_directory(path: Path, model: LanguageModel, tokenizer: Tokenizer) -> Generator[Path]:
    """A folder with weights (safetensors), configuration and tokenizer. The block may add files to it.

    The folder appears at `path` when the block ends, whole or not at all. For a model with adapters it holds the adapters
    alone.

    Raises:
        StorageError: the folder cannot be written; nothing half-written is left.
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
            # For a full disk safetensors raises SafetensorError, torch RuntimeError, and tokenizers a bare Exception.
            if isinstance(error, SafetensorError | RuntimeError) or type(error) is Exception:
                raise unwritable(path, error) from error
            raise


def save_pretrained_atomically(model: LanguageModel, tokenizer: Tokenizer, directory: str | Path) -> None:
    """Write weights, configuration and tokenizer; see `model_directory`."""
    with model_directory(Path(directory), model, tokenizer):
        pass
