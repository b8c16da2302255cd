r"""Which pieces of a world's text deserve a token of their own.

Invariants
----------
* No piece joins a name ("fridge 1", or its noun "fridge") with anything else. Templates are few and names are many, so
  what is learnt about a template holds for every name in it, seen together or not.
* No piece crosses a tag or a control token.
* The result depends on the texts alone: ties are broken by the text of the piece.

Text is cut at names into runs, runs into atoms (a word or a punctuation mark with the space after it). Atoms that stand
side by side most often are merged again and again, as in byte-pair encoding, but a merged piece that further merges
have used up gives its place back. What is left is names, words and whole phrases ("You arrive at ", "\ngo to ").
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

__all__ = ["learn_pieces"]

_NAME = re.compile(r"\b([a-z]+) \d+\b")
_ATOM = re.compile(r"\d|[^\W\d]+ ?|\s|[^\w\s]+ ?")


def learn_pieces(texts: Iterable[str], *, room: int, min_count: int, barriers: Sequence[str] = ()) -> list[str]:
    """The pieces of at least two characters worth an entry, most used first among names and words, then phrases.

    Args:
        texts: what the model will read and write; repeats count.
        room: most pieces.
        min_count: a piece must be used as often as this.
        barriers: strings that are tokens already, which no piece may cross.
    """
    between = re.compile("|".join(map(re.escape, barriers)) or r"(?!)")
    sections: Counter[str] = Counter()
    for text in texts:
        sections.update(filter(None, between.split(text)))
    names = _names(sections, min_count)
    words, runs = _split(sections, {name.split(" ")[0] for name in names})
    known = {piece: count for piece, count in (names + words).items() if count >= min_count and len(piece) > 1}
    basic = sorted(known, key=lambda piece: (-known[piece], piece))[:room]
    return basic + _phrases(runs, room - len(basic), min_count, set(basic))


def _names(sections: Counter[str], min_count: int) -> Counter[str]:
    """Names, as "word number", with how often each occurs."""
    names: Counter[str] = Counter()
    for text, count in sections.items():
        for match in _NAME.finditer(text):
            names[match[0]] += count
    return Counter({name: count for name, count in names.items() if count >= min_count})


def _split(sections: Counter[str], nouns: set[str]) -> tuple[Counter[str], Counter[tuple[str, ...]]]:
    """Words (nouns among them) with their counts, and the runs of atoms between names."""
    name = re.compile(rf"\b(?:{'|'.join(sorted(nouns))})\b(?: \d+\b)?" if nouns else r"(?!)")
    words: Counter[str] = Counter(dict.fromkeys(nouns, 0))
    runs: Counter[tuple[str, ...]] = Counter()
    for text, count in sections.items():
        for match in name.finditer(text):
            words[match[0].split(" ")[0]] += count
        for run in name.split(text):
            if atoms := tuple(_ATOM.findall(run)):
                runs[atoms] += count
    for atoms, count in runs.items():
        for atom in atoms:
            words[atom] += count
    return words, runs


def _phrases(runs: Counter[tuple[str, ...]], room: int, min_count: int, known: set[str]) -> list[str]:
    """Merge the most frequent neighbours until `room` phrases are in use or no pair is frequent enough."""
    sequences, weights = [list(run) for run in runs], list(runs.values())
    pairs: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    uses: Counter[str] = Counter()
    """Of merged pieces only, by the current segmentation."""

    def count(index: int, sign: int) -> None:
        sequence, weight = sequences[index], sign * weights[index]
        for pair in itertools.pairwise(sequence):
            pairs[pair] += weight
            where[pair].add(index)
        for piece in sequence:
            if piece in merged:
                uses[piece] += weight

    merged: set[str] = set()
    for index in range(len(sequences)):
        count(index, 1)
    while pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        if pairs[best] < min_count or sum(uses[piece] >= min_count for piece in merged) >= room:
            break
        piece = best[0] + best[1]
        if piece not in known:
            merged.add(piece)
        for index in sorted(where.pop(best)):
            count(index, -1)
            sequences[index] = _merge(sequences[index], best)
            count(index, 1)
        del pairs[best]
    return sorted((piece for piece in merged if uses[piece] >= min_count), key=lambda piece: (-uses[piece], piece))


def _merge(sequence: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of the pair, from the left."""
    joined: list[str] = []
    index = 0
    while index < len(sequence):
        if index + 1 < len(sequence) and (sequence[index], sequence[index + 1]) == pair:
            joined.append(sequence[index] + sequence[index + 1])
            index += 2
        else:
            joined.append(sequence[index])
            index += 1
    return joined
