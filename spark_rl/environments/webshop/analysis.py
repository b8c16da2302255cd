"""The terms of a text for search: Lucene's `EnglishAnalyzer`, term for term.

Invariant: a text and a query that Lucene would reduce to the same terms are reduced to the same terms here.

Text is split into words by the rules of Unicode (UAX #29), as far as shop texts need them: letters and digits stay
together, ":" and "." join letters, "." and "," join digits, an emoji is a word, and so is each Chinese character. A
possessive 's and 33 stop words are removed. The other words are stemmed by Porter's rules (M. F. Porter, "An algorithm for
suffix stripping", 1980) with two changes by Lucene: words of one or two letters stay, and "-logi" becomes "-log".
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["STOP_WORDS", "stem", "terms"]

STOP_WORDS = frozenset(
    [
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if"),
        *("in", "into", "is", "it", "no", "not", "of", "on", "or", "such", "that"),
        *("the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with"),
    ]
)
"""Words that the search ignores."""


def _token() -> re.Pattern[str]:
    # Letters and digits for Python that are no part of a word for Unicode: fractions, superscripts, circled numbers.
    loose = "\uff9f" + "".join(
        char for char in map(chr, range(0xA0, 0x3400)) if char.isnumeric() and not char.isalpha() and not char.isdecimal()
    )
    han = "\u2e80-\u2fdf\u3005\u3007\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    picture = (
        "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf\u23e9-\u23f3\u23f8-\u23fa"
        "\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714\u2716"
        "\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf"
        "\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]\ufe0f?"
    )
    word = rf"[^\W{loose}{han}]"
    joins_letters = r"(?<=[^\W\d_])[:·.'’‘․：﹕．＇]" + rf"(?=[^\W\d_{loose}{han}])"
    joins_digits = r"(?<=\d)[.,;'’‘⁄，；．＇](?=\d)"
    emoji = rf"{picture}(?:\u200d{picture})*"
    return re.compile(rf"{emoji}|[{han}]|{word}+(?:(?:{joins_letters}|{joins_digits}){word}+)*")


_TOKEN = _token()
_PLAIN = re.compile(r"[a-z0-9_]+(?:(?:(?<=[a-z])[:.'](?=[a-z])|(?<=\d)[.,;'](?=\d))[a-z0-9_]+)*")
"""`_TOKEN` on texts without a character above 127: the same words, in a third of the time."""
_POSSESSIVE = ("'s", "’s", "＇s")


def terms(text: str) -> list[str]:
    """The terms of a text, in order, with repetitions."""
    text = text.lower()
    tokens = (_PLAIN if text.isascii() else _TOKEN).findall(text)
    return [term for token in tokens if (term := _term(token))]


@lru_cache(maxsize=1 << 18)
def _term(token: str) -> str:
    """The term of a word; empty where it has none."""
    if token.endswith(_POSSESSIVE):
        token = token[:-2]
    return "" if token in STOP_WORDS or token == "_" else stem(token)


# -- Porter's stemmer -----------------------------------------------------------------------------------------------

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = (
    "ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ion", "ism", "ate", "iti", "ous", "ive", "ize",
    "al", "er", "ic", "ou",
)  # fmt: skip
"""Longest first, since only the longest suffix that fits counts."""


def _shape(word: str) -> str:
    """The word with v for each vowel and c for each consonant; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        shape += "v" if letter in "aeiou" or (letter == "y" and shape.endswith("c")) else "c"
    return shape


def _measure(word: str) -> int:
    """Number of places where a consonant follows a vowel."""
    return _shape(word).count("vc")


def _ends_short(word: str) -> bool:
    """Whether the word ends in consonant, vowel, consonant, where the last consonant is not w, x or y."""
    return _shape(word).endswith("cvc") and word[-1] not in "wxy"


def _suffix(word: str, rules: dict[str, str]) -> str:
    """The word after the first rule whose suffix fits; the rule applies only where the rest has a vowel and a consonant."""
    for suffix, to in rules.items():
        if word.endswith(suffix):
            root = word[: -len(suffix)]
            return root + to if _measure(root) else word
    return word


def stem(word: str) -> str:
    """The stem of a lower-case word.

    >>> [stem(word) for word in ("dresses", "running", "shoes", "ties", "natural", "us")]
    ['dress', 'run', 'shoe', 'ti', 'natur', 'us']
    """
    if len(word) <= 2:
        return word
    word = _inflected(word)
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    word = _suffix(_suffix(word, _STEP_2), _STEP_3)
    suffix = next(filter(word.endswith, _STEP_4), "")
    root = word.removesuffix(suffix)
    if suffix and _measure(root) > 1 and (suffix != "ion" or root.endswith(("s", "t"))):
        word = root
    if word.endswith("e"):
        root = word[:-1]
        if _measure(root) > 1 or (_measure(root) == 1 and not _ends_short(root)):
            word = root
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _inflected(word: str) -> str:
    """The word without the endings of plurals, -ed and -ing."""
    if word.endswith(("sses", "ies")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) else word
    ending = next(filter(word.endswith, ("ed", "ing")), "")
    root = word.removesuffix(ending)
    if not ending or "v" not in _shape(root):
        return word
    if root.endswith(("at", "bl", "iz")):
        return root + "e"
    if root[-2:-1] == root[-1] and _shape(root)[-1] == "c":
        return root if root[-1] in "lsz" else root[:-1]
    return root + "e" if _measure(root) == 1 and _ends_short(root) else root
