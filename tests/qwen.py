"""A model with the outside of Qwen2.5-Instruct and the inside of a toy.

151,936 embeddings, of which the tokenizer knows 151,665; control tokens at their ids; a chat template that starts with a
system turn of its own; random weights in bfloat16.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCABULARY, LENGTH = 151_936, 151_665
ENDOFTEXT, START, END = 151_643, 151_644, 151_645
TEMPLATE = (
    "{%- if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif -%}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}"
)
TEXTS = [
    "You are an expert agent in a text world. At each step reason in one short sentence, then act.",
    "<explore>I need a tomato. It may be in a fridge.</explore><action>go to fridge 1</action>",
    "You arrive at countertop 1. On the countertop 1, you see a mug 1, and a plate 2. Admissible actions: look, inventory",
]


def tokenizer() -> Any:
    """Byte-level BPE with a few merges, its vocabulary filled up with entries that no text reaches."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(TEXTS, trainer)
    with tempfile.TemporaryDirectory() as folder:
        made.model.save(folder)
        merges: Any = [tuple(line.split()) for line in (Path(folder) / "merges.txt").read_text().splitlines()[1:]]
    vocabulary = made.get_vocab(with_added_tokens=False)
    vocabulary |= {f"\u0000{index}": index for index in range(len(vocabulary), ENDOFTEXT)}
    whole = Tokenizer(models.BPE(vocabulary, merges))
    whole.normalizer, whole.pre_tokenizer, whole.decoder = made.normalizer, made.pre_tokenizer, made.decoder
    controls = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *(f"<|control_{index}|>" for index in range(LENGTH - END - 1)),
    ]
    whole.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in controls])
    return PreTrainedTokenizerFast(
        tokenizer_object=whole, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


@cache
def scratch() -> Path:
    """A folder for this process, removed at its end."""
    place = Path(tempfile.mkdtemp(prefix="spark-rl-qwen-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


@cache
def folder(hidden: int = 32) -> Path:
    """The model directory, made once a process; to be read only."""
    place = scratch() / f"model-{hidden}"
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=ENDOFTEXT,
        eos_token_id=END,
        dtype=torch.bfloat16,
    )
    model: Any = Qwen2ForCausalLM(config)
    model = model.to(torch.bfloat16)
    model.generation_config.eos_token_id = [END, ENDOFTEXT]
    model.save_pretrained(place)
    tokenizer().save_pretrained(place)
    settings = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "Qwen2Tokenizer"}))
    return place


def plain(place: Path) -> tuple[Any, Any]:
    """Model and tokenizer as transformers loads them, with nothing of ours."""
    return AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
