r"""Chooses the pieces of a world's text that get a token of their own.

Invariants
----------
* A name ("fridge 1") is two pieces, its noun and its number. No piece joins them with each other or with other text. So a
  noun is one token everywhere, and a model that has learnt a text template can use it with any name, even a name that
  never occurred there in training.
* No piece crosses a tag or a control token.
* The result depends on the texts alone: the text of a piece breaks ties.

Names cut the text into runs, and each run is cut into atoms (a word or a punctuation mark with the space after it). The
most frequent pair of neighbouring atoms is merged, again and again, as in byte-pair encoding; but a merged piece loses its
place when further merges have used it up. The result is nouns, numbers, words and whole phrases ("You arrive at ",
"\ngo to ").
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

__all__ = ["learn_pieces"]

_NAME = re.compile(r"\b[a-z]+ \d+\b")
_ATOM = re.compile(r"\d|[^\W\d]+ ?|\s|[^\w\s]+ ?")


def learn_pieces(texts: Iterable[str], *, room: int, min_count: int, barriers: Sequence[str] = ()) -> list[str]:
    """The pieces of at least two characters: first nouns, numbers and words, then phrases, each by falling frequency.

    Args:
        texts: the texts that the model will read and write; repeats count.
        room: most pieces.
        min_count: fewest uses of a piece.
        barriers: strings that are tokens already; no piece may cross them.
    """
    between = re.compile("|".join(map(re.escape, barriers)) or r"(?!)")
    sections: Counter[str] = Counter()
    for text in texts:
        sections.update(filter(None, between.split(text)))
    names = _names(sections, min_count)
    words, runs = _split(sections, {name.split(" ")[0] for name in names})
    for name, count in names.items():
        words[name[name.index(" ") :]] += count
    frequent = {piece: count for piece, count in words.items() if count >= min_count and len(piece) > 1}
    basic = sorted(frequent, key=lambda piece: (-frequent[piece], piece))[:room]
    return basic + _phrases(runs, room - len(basic), min_count, set(basic))


def _names(sections: Counter[str], min_count: int) -> Counter[str]:
    """How often each name ("word number") occurs, without the rare ones."""
    names: Counter[str] = Counter()
    for text, count in sections.items():
        for match in _NAME.finditer(text):
            names[match[0]] += count
    return Counter({name: count for name, count in names.items() if count >= min_count})


def _split(sections: Counter[str], nouns: set[str]) -> tuple[Counter[str], Counter[tuple[str, ...]]]:
    """Counts of words (nouns among them), and counts of the runs of atoms between names."""
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


def _phrases(runs: Counter[tuple[str, ...]], room: int, min_count: int, basic: set[str]) -> list[str]:
    """Merge the most frequent neighbours until `room` phrases are in use or no pair is frequent enough."""
    sequences, weights = [list(run) for run in runs], list(runs.values())
    pairs: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    merged: set[str] = set()
    uses: Counter[str] = Counter()  # how often the present sequences use each merged piece
    queue: list[tuple[int, tuple[str, str]]] = []  # most frequent first; outdated entries are skipped

    def count(index: int, sign: int) -> set[tuple[str, str]]:
        sequence, weight = sequences[index], sign * weights[index]
        neighbours = list(itertools.pairwise(sequence))
        for pair in neighbours:
            pairs[pair] += weight
            where[pair].add(index)
        for piece in sequence:
            if piece in merged:
                uses[piece] += weight
        return set(neighbours)

    def rank(changed: Iterable[tuple[str, str]]) -> None:
        for pair in changed:
            if pairs[pair] >= min_count:
                heapq.heappush(queue, (-pairs[pair], pair))

    for index in range(len(sequences)):
        count(index, 1)
    rank(list(pairs))
    while queue and (len(merged) < room or sum(uses[piece] >= min_count for piece in merged) < room):
        frequency, best = heapq.heappop(queue)
        if pairs[best] != -frequency:
            continue
        if (piece := best[0] + best[1]) not in basic:
            merged.add(piece)
        changed: set[tuple[str, str]] = set()
        for index in where.pop(best):
            changed |= count(index, -1)
            sequences[index] = _merge(sequences[index], best)
            changed |= count(index, 1)
        rank(changed)
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
