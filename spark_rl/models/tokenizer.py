# pyright: standard
"""A tokenizer that is learnt from the texts of a world.

Invariants
----------
* It is lossless: `decode(encode(text)) == text` for any text, white space and rare characters included.
* Tags and control tokens are always one token, so the ids of two texts joined at one are the texts' ids joined.

It has 256 byte entries, and above them the pieces of `vocabulary.learn_pieces` as added tokens: the text is cut at the
leftmost longest pieces, and what lies between falls back to bytes. Its chat template is ChatML without a default system
turn.

Added tokens rather than a unigram model or merges, because `AutoTokenizer` rebuilds the tokenizer of any Qwen2 model from
its vocabulary and merges, as Qwen2's own: added tokens survive that. (It also adds Unicode normalisation, which
`load_tokenizer` does not.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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
