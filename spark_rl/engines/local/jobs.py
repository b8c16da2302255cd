"""The prompts of a running batch, and what they have in common, level by level.

Invariants
----------
* The spans of a job are its prompt: trunk, limb and tail, as far as there are.
* A token that is read for several jobs is counted for one of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spark_rl.engines.local.cache import NOTHING, Ints
from spark_rl.engines.local.levels import Slab, cut

__all__ = ["Job", "Level", "Sample", "Span", "levels_of"]


@dataclass(slots=True)
class Sample:
    """One completion to draw, with its place among the answers."""

    request: int
    number: int
    seed: int
    address: Hashable | None
    temperature: float
    limit: int
    """Most tokens."""


@dataclass(slots=True, eq=False)
class Span:
    """Tokens that a group of a level holds: those of `ids` from `start` on."""

    ids: Ints
    """A prompt up to the end of the span."""
    start: int
    slots: Ints
    """Pool slots of the first tokens: of those that were cached, later of all."""
    kept: bool = False
    """Whether all tokens have slots."""

    @property
    def fresh(self) -> int:
        """Tokens that have to be read."""
        return len(self.ids) - self.start - len(self.slots)


@dataclass(slots=True, eq=False)
class Job:
    """One prompt with all its samples."""

    ids: Ints
    samples: list[Sample] = field(default_factory=list[Sample])
    parents: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    slots: Ints = field(default_factory=lambda: NOTHING.slots)
    """Pool slots of the cached prefix."""
    read: int = 0
    """Tokens that were read for this job; what several jobs have in common counts for one of them."""
    misses: int = 0
    """Parents whose cache entry was evicted."""
    spans: list[Span] = field(default_factory=list[Span])
    """The trunk, the limb and the tail, as far as there are."""

    @property
    def columns(self) -> int:
        """Most tokens of a row."""
        return len(self.ids) + max(sample.limit for sample in self.samples)

    @property
    def kept(self) -> bool:
        """Whether the pool holds the whole prompt."""
        return all(span.kept for span in self.spans)

    @property
    def remembered(self) -> bool:
        """Whether anything is to be found again under the prompt's or a sample's address."""
        return bool(self.parents) or any(sample.address is not None for sample in self.samples)


@dataclass(frozen=True, eq=False)
class Level:
    """The groups of a level, and which group each job belongs to."""

    slab: Slab
    spans: list[Span]
    of: NDArray[np.int64]
    """The group of each job; -1: none."""


def levels_of(slabs: tuple[Slab, Slab, Slab], jobs: list[Job]) -> tuple[list[Job], list[Level]]:
    """The jobs in the order of the tails, and the levels from the coarsest to the tails."""
    cuts = cut([job.ids for job in jobs], [len(job.samples) for job in jobs])
    # Jobs with similar numbers of new tokens stand side by side, so that they are read together.
    order = sorted(
        range(len(jobs)), key=lambda index: len(jobs[index].ids) - max(len(jobs[index].slots), int(cuts.ends[index]))
    )
    jobs, limbs, ends = [jobs[index] for index in order], cuts.limbs[order], cuts.ends[order]
    trunks = np.full(len(jobs), 0 if cuts.trunk else -1)
    levels: list[Level] = []
    for slab, of, start in ((slabs[0], trunks, 0), (slabs[1], limbs.astype(np.int64), cuts.trunk)):
        spans: list[Span] = []
        for group in range(int(of.max()) + 1):
            members = [index for index in range(len(jobs)) if of[index] == group]
            stop = cuts.trunk if slab is slabs[0] else int(ends[members[0]])
            spans.append(_span([jobs[index] for index in members], start, stop))
        if spans:
            levels.append(Level(slab, spans, of))
    tails = [_span([job], int(end), len(job.ids)) for job, end in zip(jobs, ends, strict=True)]
    return jobs, [*levels, Level(slabs[2], tails, np.arange(len(jobs)))]


def _span(jobs: list[Job], start: int, stop: int) -> Span:
    """What these jobs have in common from `start` to `stop`. The job of which most is cached bears the cost of the rest."""
    first = max(jobs, key=lambda job: len(job.slots))
    span = Span(first.ids[:stop], start, first.slots[start:stop])
    first.read += span.fresh
    for job in jobs:
        job.spans.append(span)
    return span
