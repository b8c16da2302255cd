"""Full-text search that ranks as Lucene's BM25 does (k1 = 0.9, b = 0.4), on arrays that may lie in files.

Invariants
----------
* A search returns the hits of Lucene in the order of Lucene. `analysis.terms` makes the terms, a length takes one byte as
  in Lucene, each score is a sum of 32-bit floats in the order of the query's terms, and the text of the ids breaks ties.
* An index is arrays of numbers and nothing else. Mapped from files it opens at once, however large, and processes share
  it.

Lucene stores a document's length in one byte: exactly below 24, then with four significant bits. A term's weight in a
document does not depend on the query, so it is stored. A query adds up the weights of its terms, a repeated term as often
as the query repeats it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spark_rl.environments.webshop.analysis import terms

__all__ = ["Index", "IndexBuilder", "Numbers", "stored_length"]

Numbers = NDArray[Any]
"""An array of numbers of some type."""

K1, B = 0.9, 0.4
_CHUNK = 1 << 22
"""Postings weighed at once, so that building needs little more memory than the index."""


def stored_length(length: int) -> int:
    """A length as Lucene reads it back from its byte.

    >>> [stored_length(n) for n in (23, 24, 39, 40, 41, 42, 100)]
    [23, 24, 39, 40, 40, 42, 96]
    """
    if length < 24:
        return length
    shift = max((length - 24).bit_length() - 4, 0)
    return 24 + ((length - 24) >> shift << shift)


@dataclass(frozen=True, eq=False)
class Index:
    """A full-text index; documents are numbers from 0."""

    words: NDArray[np.uint8]
    """All terms in UTF-8, sorted, one behind the other."""
    ends: NDArray[np.int64]
    """Where each term ends in `words`."""
    starts: NDArray[np.int64]
    """Where the documents of each term start in `documents`; one number more than there are terms."""
    documents: NDArray[np.int32]
    """Documents that hold a term, term by term."""
    weights: NDArray[np.float32]
    """What a term adds to the score of each of its documents."""
    rank: NDArray[np.int32]
    """Place of each document among the sorted ids."""

    def search(self, query: str, most: int = 50) -> list[int]:
        """Documents that hold a term of the query, best first."""
        scores = np.zeros(len(self.rank), dtype=np.float32)
        for term, count in Counter(terms(query)).items():
            if (number := self._number(term.encode())) is not None:
                span = slice(self.starts[number], self.starts[number + 1])
                scores[self.documents[span]] += count * self.weights[span]
        hits = np.flatnonzero(scores)
        if len(hits) > most:
            least = np.partition(scores[hits], len(hits) - most)[len(hits) - most]
            hits = hits[scores[hits] >= least]
        return cast("list[int]", hits[np.lexsort((self.rank[hits], -scores[hits]))][:most].tolist())

    def _number(self, term: bytes) -> int | None:
        """Place of a term among the sorted terms."""
        number = bisect_left(range(len(self.ends)), term, key=self._word)
        return number if number < len(self.ends) and self._word(number) == term else None

    def _word(self, number: int) -> bytes:
        start = self.ends[number - 1] if number else 0
        return self.words[start : self.ends[number]].tobytes()

    def arrays(self) -> Iterator[tuple[str, Numbers]]:
        """The arrays by name, as they are written to files."""
        return ((name, getattr(self, name)) for name in self.__dataclass_fields__)

    @classmethod
    def of(cls, arrays: Mapping[str, Numbers]) -> Index:
        """An index from the arrays of `Index.arrays`, in memory or mapped from files."""
        return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


class IndexBuilder:
    """Builds an index document by document; it holds the postings so far and nothing else."""

    def __init__(self) -> None:
        self._vocabulary: dict[str, int] = {}
        self._terms, self._documents, self._lengths = array("i"), array("i"), array("i")
        self._counts = array("H")

    def add(self, text: str) -> None:
        """One more document."""
        counts = Counter(terms(text))
        vocabulary, document = self._vocabulary, len(self._lengths)
        self._terms.extend([vocabulary.setdefault(term, len(vocabulary)) for term in counts])
        self._documents.extend([document] * len(counts))
        self._counts.extend([min(count, 0xFFFF) for count in counts.values()])
        self._lengths.append(sum(counts.values()))

    def finish(self, ids: Sequence[str] | NDArray[np.bytes_]) -> Index:
        """The index of the documents so far; afterwards the builder is empty.

        Args:
            ids: the documents' ids, in order; their text breaks ties.
        """
        names = sorted(self._vocabulary, key=str.encode)
        place = np.empty(len(names), dtype=np.int32)
        place[[self._vocabulary[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        encoded = [name.encode() for name in names]
        words = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        ends = np.cumsum([len(word) for word in encoded], dtype=np.int64)
        del names, encoded
        self._vocabulary = {}

        term = place[np.frombuffer(self._terms, dtype=np.int32)] if self._terms else np.empty(0, np.int32)
        order = np.argsort(term, kind="stable").astype(np.int32 if len(term) < 2**31 else np.int64)
        frequency = np.bincount(term, minlength=len(place))
        del term
        self._terms = array("i")
        documents = np.frombuffer(self._documents, dtype=np.int32)[order] if len(order) else np.empty(0, np.int32)
        counts = np.frombuffer(self._counts, dtype=np.uint16)[order] if len(order) else np.empty(0, np.uint16)
        self._documents, self._counts = array("i"), array("H")
        lengths = np.array(self._lengths, dtype=np.int64)
        self._lengths = array("i")
        del order

        total = len(lengths)
        mean = lengths.sum() / max((lengths > 0).sum(), 1) or 1.0
        stored = np.array([stored_length(n) for n in range(int(lengths.max(initial=0)) + 1)])[lengths]
        norm = (K1 * (1 - B + B * stored / mean)).astype(np.float32) if total else np.empty(0, np.float32)
        rarity = np.log(1 + (total - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(frequency, dtype=np.int64)])
        weights = np.repeat(rarity, frequency)
        for start in range(0, len(weights), _CHUNK):
            part = slice(start, start + _CHUNK)
            count = counts[part].astype(np.float32)
            weights[part] *= count / (count + norm[documents[part]])
        rank = np.empty(total, dtype=np.int32)
        rank[np.argsort(np.asarray(ids), kind="stable")] = np.arange(total, dtype=np.int32)
        return Index(words, ends, starts, documents, weights, rank)
