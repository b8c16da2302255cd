"""One running batch of the local engine: prompts are read level by level, then all rows advance together, a token a step.

Invariants
----------
* A sample's tokens depend on its prompt, its seed and the weights, not on the other rows (up to rounding).
* What prompts have in common is read once.
* Slots that the batch holds in the cache are released when the batch ends; after an error the engine clears the cache.

A job's longest cached prefix is found under its parent's address. The prompts are cut into levels (`levels`). At each level
the cached part is loaded, and the model reads the rest: all groups together, packed into one row without padding. The tails
are repeated for the jobs' samples. Ended rows are dropped when they are half of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from spark_rl.common.prefix import shared_prefix
from spark_rl.engines.local.attention import Pass, View
from spark_rl.engines.local.cache import NOTHING, Entry, Ints
from spark_rl.engines.local.decoding import ROOM, Decoding
from spark_rl.engines.local.jobs import Job, Level, Sample, levels_of
from spark_rl.engines.local.passes import Machine, Passes, arrange
from spark_rl.errors import PolicyFailure
from spark_rl.types import Completion, Cost

__all__ = ["PREFILL_TOKENS", "Batch"]

PREFILL_TOKENS = 4096
"""Most tokens of one forward pass over prompts."""


class Batch:
    """One running batch: its jobs, and the tokens of its samples."""

    def __init__(self, engine: Machine, jobs: list[Job]) -> None:
        self.engine, self.cache, self.passes = engine, engine.cache, Passes(engine)
        for job in jobs:
            self._recall(job)
        self.jobs, self.levels = levels_of(engine.slabs, jobs)
        self.held = [job.slots for job in self.jobs]
        """Slots to release at the end."""

    def run(self) -> Iterator[tuple[Sample, Completion]]:
        """Read the prompts, draw the tokens and fill the cache. Yields each sample with its completion."""
        decoding = Decoding(self.passes, self.jobs, self.levels)
        logits = torch.empty(0)
        for level in self.levels:
            tails = level is self.levels[-1]
            columns = max(len(span.ids) - span.start for span in level.spans)
            room = min(int(decoding.limits.max()), ROOM) if tails else 0
            level.slab.open(len(decoding.samples) if tails else len(level.spans), columns + room)
            logits = self._prefill(level)
        self._keep_prompts()
        decoding.run(logits)
        for slots in self.held:
            self.cache.release(slots)
        if not np.isfinite(decoding.logprobs).all():
            raise PolicyFailure("the model's log-probabilities are not finite: its weights diverged or its dtype overflows")
        yield from self._completions(decoding)

    def _completions(self, decoding: Decoding) -> Iterator[tuple[Sample, Completion]]:
        engine = self.engine
        for index, sample in enumerate(decoding.samples):
            length = int(decoding.lengths[index])
            ids = decoding.tokens[index, :length].tolist()
            text = engine.tokenizer.decode(ids[:-1] if engine.stops[ids[-1]] else ids, clean_up_tokenization_spaces=False)
            logprobs = decoding.logprobs[index, :length].tolist()
            # Entropies decide where to fork and train nothing: four decimals keep saved forests small.
            entropies = decoding.entropies[index, :length].round(4).tolist()
            # The first sample of a job bears the cost of the job's prompt.
            job = self.jobs[int(decoding.owners[index])]
            cost = Cost(length, reused=len(job.ids))
            if sample is job.samples[0]:
                cost = Cost(length, job.read, len(job.ids) - job.read, job.misses)
            yield sample, Completion(text, tuple(ids), tuple(logprobs), tuple(entropies), engine.version, cost=cost)

    def _recall(self, job: Job) -> None:
        """Find the longest cached prefix and hold its slots. The last prompt token is always read, for its logits."""
        best = NOTHING.slots
        for parent in job.parents:
            entry = self.cache.find(parent)
            if entry is None:
                job.misses += len(parent) > 1  # before the first step, nothing can have been cached
            elif (length := min(shared_prefix(entry.ids, job.ids), len(job.ids) - 1)) > len(best):
                best = entry.slots[:length]
        self.cache.hold(best)
        job.slots = best

    def _prefill(self, level: Level) -> torch.Tensor:
        """Load and read the spans of a level. Returns the logits after the last token of each tail, [jobs, vocabulary]."""
        if width := max(len(span.slots) for span in level.spans):
            slots = np.zeros((len(level.spans), width), np.int64)  # slot 0 is padding
            for row, span in enumerate(level.spans):
                slots[row, : len(span.slots)] = span.slots
            level.slab.load(self.cache.pool, self.passes.tensor(slots))
        fresh = [span.fresh for span in level.spans]
        return torch.cat([self._read(level, first, last) for first, last in _stretches(fresh)])

    def _read(self, level: Level, first: int, last: int) -> torch.Tensor:
        """Read the new tokens of some groups of a level, in blocks. Returns the logits after the last token of each tail."""
        passes, spans = self.passes, level.spans[first:last]
        above = self.levels[: self.levels.index(level)]
        jobs = np.array([np.flatnonzero(level.of == group)[0] for group in range(first, last)])
        fresh, known, starts = (
            np.array(each) for each in zip(*((s.fresh, len(s.slots), s.start) for s in spans), strict=True)
        )
        logits: dict[int, torch.Tensor] = {}
        block = max(1, PREFILL_TOKENS // (last - first))
        for begin in range(0, int(fresh.max()), block):
            count = np.clip(fresh - begin, 0, block)
            group = np.repeat(np.arange(last - first), count)
            columns = known[group] + begin + np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
            positions = starts[group] + columns
            ids = np.array([int(spans[g].ids[p]) for g, p in zip(group.tolist(), positions.tolist(), strict=True)])
            views = [view for each in above if (view := passes.view(each, jobs[group])) is not None]
            views.append(self._own(level, first, group, columns, last - first))
            work = Pass(level.slab, passes.tensor(group + first), passes.tensor(columns), views)
            done = np.flatnonzero((count > 0) & (begin + count == fresh)) if level is self.levels[-1] else np.zeros(0, int)
            # A model computes the logits of one token at least.
            found = passes.forward(ids, positions, work, (np.cumsum(count) - 1)[done] if len(done) else np.zeros(1, int))
            logits |= dict(zip(done.tolist(), found, strict=False))
        return torch.stack([logits[group] for group in sorted(logits)]) if logits else torch.empty(0)

    def _own(self, level: Level, first: int, group: NDArray[np.int64], columns: NDArray[np.int64], groups: int) -> View:
        """How the new tokens of some groups see their own group: up to themselves."""
        passes = self.passes
        queries, places = arrange(group, groups)
        width = int(columns.max()) + 1
        mask = passes.additive(passes.tensor(np.arange(width) <= columns[queries][..., None])[:, None])
        return View(level.slab, first, first + groups, width, mask, passes.tensor(queries), None, passes.tensor(places))

    def _keep_prompts(self) -> None:
        """Move new keys and values to the pool, and keep each prompt under its parents' addresses."""
        for level in self.levels:
            wanted = {int(level.of[index]) for index, job in enumerate(self.jobs) if job.remembered}
            moved: list[tuple[int, int, Ints]] = []
            for group in sorted(wanted - {-1}):
                span = level.spans[group]
                if (new := self.cache.reserve(span.fresh)) is None:
                    continue
                moved.append((group, len(span.slots), new))
                span.slots, span.kept = np.concatenate([span.slots, new]), True
            self.passes.store(level.slab, moved)
            self.held += [new for _, _, new in moved]
        for job in self.jobs:
            if job.kept:
                for parent in job.parents:
                    self.cache.put(parent, Entry(job.ids, np.concatenate([span.slots for span in job.spans])))


def _stretches(fresh: list[int]) -> Iterator[tuple[int, int]]:
    """Cut numbers of new tokens into stretches of similar numbers, which are read together."""
    first, total = 0, 0
    for last in range(len(fresh)):
        total += fresh[last]
        if last > first and (total > PREFILL_TOKENS or max(fresh[first : last + 1]) > 4 * min(fresh[first : last + 1]) + 32):
            yield first, last
            first, total = last, fresh[last]
    yield first, len(fresh)
