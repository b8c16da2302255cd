"""A tokenizer that is learnt from the texts of a world.

Invariants
----------
* The tokenizer is lossless: `decode(encode(text)) == text` for any text, white space and rare characters included.
* Each tag and each control token is always one token. So the ids of a text that is cut before or after such a token are
  the ids of its two parts, one after the other.

The tokenizer has 256 byte entries, and above them the pieces of `vocabulary.learn_pieces` as added tokens. The text is cut
at the leftmost longest pieces; the text between them falls back to bytes. The chat template is ChatML without a default
system turn.

The pieces are added tokens, not a unigram model or merges, because `AutoTokenizer` rebuilds the tokenizer of any Qwen2
model from its vocabulary and merges, as if it were Qwen2's own. Added tokens survive this. (`AutoTokenizer` also adds
Unicode normalisation; `load_tokenizer` does not.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spark_rl.contracts import Tokenizer
from spark_rl.errors import UsageError
from spark_rl.models.vocabulary import learn_pieces
from spark_rl.prompting.prompt import Prompt

__all__ = ["CHAT_TEMPLATE", "learn_tokenizer"]

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
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
) -> Tokenizer:
    """A tokenizer for a world, learnt from the texts that the model reads and writes there.

    Args:
        texts: observations, prompts and completions; a text that occurs often counts often.
        vocabulary: most entries, the 256 bytes and the control tokens included.
        min_count: fewest occurrences of a name, word or phrase that gets an entry.
        tags: texts that each get an entry and are never cut (`Prompt.tags`).

    Raises:
        UsageError: the vocabulary has no room for bytes, tags and control tokens.
    """
    alphabet = sorted(_BYTES.alphabet())
    room = vocabulary - len(alphabet) - len(HEADERS) - len(tags) - len((START, END, PAD))
    if room < 0:
        raise UsageError(f"model.vocabulary is {vocabulary}: bytes, tags and control tokens alone need {vocabulary - room}")
    pieces = learn_pieces(texts, room=room, min_count=min_count, barriers=(START, END, PAD, *tags))
    tokenizer = tokenizers.Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = _BYTES, decoders.ByteLevel()
    control = [AddedToken(text, special=True, normalized=False) for text in (START, END, PAD)]
    # The library does not annotate the elements of these lists.
    tokenizer.add_special_tokens(control)  # pyright: ignore[reportUnknownMemberType]
    # Tags count as ordinary text: decoding keeps them when it skips control tokens.
    words = [*tags, *HEADERS, *(piece for piece in pieces if piece.isascii() or not set(piece) <= set(alphabet))]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in words])  # pyright: ignore[reportUnknownMemberType]
    learnt = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    return cast(Tokenizer, learnt)
