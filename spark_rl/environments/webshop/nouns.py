"""The nouns of a title, by which the reward compares the titles of two products.

The original uses a spaCy model. The choice hardly matters for success, since the goal's own product has the same nouns
under any rule. The default is therefore a rule without a model.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from spark_rl.environments.webshop.analysis import STOP_WORDS
from spark_rl.environments.webshop.catalogue import Product
from spark_rl.errors import UsageError

__all__ = ["Nouns", "find_nouns", "words_with_letters"]

Nouns = Callable[[Product], Sequence[str]]
"""Function from a product to the nouns of its title, in lower case, with repetitions."""

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_MODEL = "en_core_web_sm"


def words_with_letters(product: Product) -> list[str]:
    """The words of the title that have a letter, without stop words."""
    words = _WORD.findall(product.title.lower())
    return [word for word in words if word not in STOP_WORDS and any(map(str.isalpha, word))]


@functools.lru_cache(maxsize=8)
def find_nouns(name: str) -> Nouns:
    """The function that gives the nouns of a title.

    Args:
        name: `rule`; `spacy` or `spacy:MODEL`; or a JSON file {asin: [noun, ...]}, where the rule serves other products.

    Raises:
        UsageError: the file or the model is missing, or the file has another form.
    """
    if name == "rule":
        return words_with_letters
    if name == "spacy" or name.startswith("spacy:"):
        return _tagged(name.partition(":")[2] or _MODEL)
    nouns = _read(Path(name).expanduser())
    return lambda product: nouns[product.asin] if product.asin in nouns else words_with_letters(product)


def _tagged(model: str) -> Nouns:
    try:
        spacy = importlib.import_module("spacy")
        tagger = spacy.load(model)
    except (ImportError, OSError) as error:
        raise UsageError(
            f"env.nouns asks for the spaCy model {model}, which is not installed: pip install spacy, then "
            f"python -m spacy download {model}, or leave env.nouns at rule"
        ) from error

    @functools.lru_cache(maxsize=1 << 14)
    def of(title: str) -> list[str]:
        return [token.text.lower() for token in tagger(title) if token.pos_ in ("NOUN", "PROPN")]

    return lambda product: of(product.title)


def _read(file: Path) -> dict[str, list[str]]:
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise UsageError(
            f'env.nouns is "{file}", which cannot be read ({error.strerror}): give rule, spacy, spacy:MODEL or a JSON file'
        ) from error
    except ValueError as error:
        raise UsageError(f"env.nouns: {file} is not JSON ({error})") from error
    if not isinstance(value, dict) or not all(
        isinstance(words, list) for words in cast("dict[object, object]", value).values()
    ):
        raise UsageError(f"env.nouns: {file} must hold an object from asins to lists of nouns")
    return cast("dict[str, list[str]]", value)
