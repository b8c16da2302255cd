"""Decoding of a running batch: all rows advance together, a token a step.

Ended rows are fed too until they are half of the rows; then they are dropped.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from spark_rl.engines.local.attention import Pass, View
from spark_rl.engines.local.cache import Entry, Ints
from spark_rl.engines.local.jobs import Job, Level, Sample
from spark_rl.engines.local.passes import Passes
from spark_rl.engines.sampling import draw, uniform

__all__ = ["ROOM", "Decoding"]

ROOM = 32
"""Columns set aside for completions at first; a batch that needs more is widened."""


class Decoding:
    """Draws tokens until every row has ended. Row i holds sample `rows[i]` and has `ends[i]` tokens in its tail so far."""

    def __init__(self, passes: Passes, jobs: list[Job], levels: list[Level]) -> None:
        """Rows for all samples of the jobs, which the levels hold."""
        self.passes, self.jobs, self.levels, self.slab = passes, jobs, levels, levels[-1].slab
        self.owners = np.repeat(np.arange(len(jobs)), [len(job.samples) for job in jobs])
        """The job of each sample."""
        self.samples: list[Sample] = [sample for job in jobs for sample in job.samples]
        self.limits = np.array([sample.limit for sample in self.samples])
        self.tokens = np.zeros((len(self.samples), int(self.limits.max())), np.int32)
        self.logprobs = np.zeros(self.tokens.shape, np.float32)
        self.entropies = np.zeros(self.tokens.shape, np.float64)
        self.lengths = np.zeros(len(self.samples), np.int64)
        self.rows = np.arange(len(self.samples))
        self.starts = np.array([job.spans[-1].start for job in jobs])[self.owners]
        self.ends = np.array([len(job.ids) for job in jobs])[self.owners] - self.starts

    def run(self, logits: torch.Tensor) -> None:
        """Fill tokens, log-probabilities, entropies and lengths, from the logits after each prompt, [jobs, vocabulary]."""
        passes = self.passes
        owners = passes.tensor(self.owners)
        if len(self.jobs) < len(self.samples):
            self.slab.select(owners, int(self.ends.max()))
        seeds = np.array([sample.seed % 2**64 for sample in self.samples], np.uint64)
        temperature = passes.tensor(np.array([sample.temperature for sample in self.samples], np.float32))[:, None]
        self._measure()
        logits, alive = logits[owners], np.ones(len(self.samples), bool)
        step = 0
        while True:
            drawn, chosen, entropy = draw(logits, temperature, uniform(seeds[self.rows], step))
            token: NDArray[np.int64] = drawn.numpy(force=True)
            self.tokens[self.rows[alive], step] = token[alive]
            self.logprobs[self.rows[alive], step] = chosen.numpy(force=True)[alive]
            self.entropies[self.rows[alive], step] = entropy.numpy(force=True)[alive]
            step += 1
            alive &= ~(passes.engine.stops[token] | (step >= self.limits[self.rows]))
            self.lengths[self.rows[~alive & (self.lengths[self.rows] == 0)]] = step
            if not alive.any():
                break
            if 2 * alive.sum() <= len(alive):
                self._retire(~alive)
                staying = passes.tensor(np.flatnonzero(alive))
                self.slab.select(staying, int(self.ends.max()))
                temperature, token, alive = temperature[staying], token[alive], self._drop(alive)
                self._measure()
            logits = self._advance(token)
        self._retire(np.ones(len(self.rows), bool))

    def _drop(self, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Keep the living rows alone. Returns the marks of the rows that are left."""
        self.rows, self.starts, self.ends = self.rows[alive], self.starts[alive], self.ends[alive]
        return alive[alive]

    def _measure(self) -> None:
        """What the rows see as they stand."""
        passes, columns = self.passes, self.slab.data.shape[3]
        jobs = self.owners[self.rows]
        views = [passes.view(level, jobs) for level in self.levels[:-1]]
        self.above = [view for view in views if view is not None]
        self.mask = passes.additive(passes.tensor(np.arange(columns) < self.ends[:, None]))
        self.every = passes.tensor(np.arange(len(self.rows)))

    def _advance(self, token: NDArray[np.int64]) -> torch.Tensor:
        """Feed one token a row. Returns the logits, [rows, vocabulary]. Ended rows are fed too until they are dropped."""
        passes = self.passes
        if int(self.ends.max()) >= (columns := self.slab.data.shape[3]):
            self.slab.widen(columns + max(ROOM, columns // 8))
            self._measure()
        columns = passes.tensor(self.ends)
        self.mask[self.every, columns] = 0.0
        # All columns, also those still empty: a part of the columns would be copied before it is multiplied.
        own = View(self.slab, 0, len(self.rows), self.mask.shape[1], self.mask[:, None, None])
        positions = self.starts + self.ends
        if (context := passes.engine.context) is not None:
            positions = np.minimum(positions, context - 1)
        work = Pass(self.slab, self.every, columns, [*self.above, own])
        self.ends = self.ends + 1
        return passes.forward(token, positions, work, np.arange(len(self.rows)))

    def _retire(self, leaving: NDArray[np.bool_]) -> None:
        """Cache prompt and completion of ended rows, without the last token, which was never fed."""
        passes, cache = self.passes, self.passes.engine.cache
        parts: list[tuple[int, int, Ints]] = []
        for row in np.flatnonzero(leaving).tolist():
            index = int(self.rows[row])
            job, address = self.jobs[int(self.owners[index])], self.samples[index].address
            count = int(self.lengths[index]) - 1
            if address is None or not job.kept or (new := cache.reserve(count)) is None:
                continue
            ids = np.concatenate([job.ids, self.tokens[index, :count]])
            slots = np.concatenate([*(span.slots for span in job.spans), new])
            cache.put(address, Entry(ids, slots))
            parts.append((row, len(job.ids) - int(self.starts[row]), new))
        passes.store(self.slab, parts)
        for _, _, new in parts:  # after all rows, so that no slot is given to two of them
            cache.release(new)
