"""One running batch of the local engine: prompts are fed job by job, then all rows advance together, one token a step.

Invariants
----------
* A sample's tokens depend on its prompt, its seed and the weights, not on the other rows.
* Slots that the batch holds in the cache are released when the batch ends; after an error the engine clears the cache.

A job's longest cached prefix is loaded from the cache entry under its parent's address. The model reads the rest of the
prompt (jobs of similar length together), and the row is repeated for the job's samples. Ended rows are dropped when they are
half of the batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from spark_rl.contracts import Tokenizer
from spark_rl.engines.local.cache import NOTHING, Entry, Ints, Layout, PrefixCache, Slab, shared_prefix
from spark_rl.engines.local.sampling import draw, uniform
from spark_rl.errors import PolicyFailure
from spark_rl.types import Completion, Cost

__all__ = ["PREFILL_TOKENS", "Batch", "Job", "Machine", "Sample"]

PREFILL_TOKENS = 4096
"""Most tokens, padding included, of one forward pass over prompts."""
ROOM = 32
"""Columns set aside for completions at first; a batch that needs more is widened."""


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


@dataclass(slots=True)
class Job:
    """One prompt with all its samples."""

    ids: Ints
    samples: list[Sample] = field(default_factory=list[Sample])
    parents: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    slots: Ints = field(default_factory=lambda: NOTHING.slots)
    """Pool slots that the job holds: those of the cached prefix, later those of the whole prompt."""
    kept: bool = False
    known: int = 0
    """Tokens of the prompt whose keys and values were cached."""
    misses: int = 0
    """Parents whose cache entry was evicted."""

    @property
    def columns(self) -> int:
        """Most tokens of a row."""
        return len(self.ids) + max(sample.limit for sample in self.samples)


class Machine(Protocol):
    """What a batch needs of its engine."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    layout: Layout
    cache: PrefixCache
    slab: Slab
    context: int | None
    """Most tokens of prompt and completion together; None means no bound."""
    stops: NDArray[np.bool_]
    """Which token ids end a turn."""
    version: int
    """Version of the weights."""


class _Passes:
    """Forward passes over the slab, and what they need on the model's device."""

    def __init__(self, engine: Machine) -> None:
        self.engine, self.slab, self.device = engine, engine.slab, engine.layout.device

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        output = self.engine.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            use_cache=True,
            logits_to_keep=1,
            **{self.engine.layout.argument: self.slab},
        )
        return output.logits[:, -1]

    def store(self, cells: list[NDArray[np.int64]], slots: list[Ints]) -> None:
        if cells:
            where, to = (self.tensor(np.concatenate(parts, dtype=np.int64)) for parts in (cells, slots))
            self.slab.store(self.engine.cache.pool, where, to)

    def additive(self, visible: torch.Tensor) -> torch.Tensor:
        """The mask that models add to their scores. Hidden cells get the least finite number, so that no row becomes NaN."""
        dtype = self.engine.layout.dtype
        return torch.zeros(visible.shape, dtype=dtype, device=self.device).masked_fill_(~visible, torch.finfo(dtype).min)

    def tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=self.device)


class Batch:
    """One running batch: its jobs, and the tokens of its samples."""

    def __init__(self, engine: Machine, jobs: list[Job]) -> None:
        self.engine, self.cache, self.slab = engine, engine.cache, engine.slab
        self.passes = _Passes(engine)
        for job in jobs:
            self._recall(job)
        # Jobs with similar numbers of new tokens stand side by side, so that they are fed together with little padding.
        self.jobs = sorted(jobs, key=lambda job: len(job.ids) - len(job.slots))
        self.owners = np.repeat(np.arange(len(jobs)), [len(job.samples) for job in self.jobs])
        """The job of each sample."""
        self.samples = [sample for job in self.jobs for sample in job.samples]
        self.limits = np.array([sample.limit for sample in self.samples])
        self.longest = max(len(job.ids) for job in jobs)
        self.tokens = np.zeros((len(self.samples), int(self.limits.max())), np.int32)
        self.logprobs = np.zeros(self.tokens.shape, np.float32)
        self.entropies = np.zeros(self.tokens.shape, np.float64)
        self.lengths = np.zeros(len(self.samples), np.int64)

    def run(self) -> Iterator[tuple[Sample, Completion]]:
        """Read the prompts, draw the tokens and fill the cache. Yields each sample with its completion."""
        self.slab.open(len(self.samples), self.longest + min(int(self.limits.max()), ROOM) + 1)
        logits = self._prefill()
        self._keep_prompts()
        _Decoding(self).run(logits)
        for job in self.jobs:
            self.cache.release(job.slots)
        engine = self.engine
        if not np.isfinite(self.logprobs).all():
            raise PolicyFailure("the model's log-probabilities are not finite: its weights diverged or its dtype overflows")
        for index, sample in enumerate(self.samples):
            ids = self.tokens[index, : self.lengths[index]].tolist()
            text = engine.tokenizer.decode(ids[:-1] if engine.stops[ids[-1]] else ids, clean_up_tokenization_spaces=False)
            logprobs = self.logprobs[index, : len(ids)].tolist()
            # Entropies decide where to fork and train nothing: four decimals keep saved forests small.
            entropies = self.entropies[index, : len(ids)].round(4).tolist()
            cost = self._cost(index)
            yield sample, Completion(text, tuple(ids), tuple(logprobs), tuple(entropies), engine.version, cost=cost)

    def _cost(self, index: int) -> Cost:
        """The cost of a sample. The first sample of a job bears the cost of the job's prompt."""
        job, generated = self.jobs[int(self.owners[index])], int(self.lengths[index])
        if self.samples[index] is not job.samples[0]:
            return Cost(generated, reused=len(job.ids))
        return Cost(generated, len(job.ids) - job.known, job.known, job.misses)

    def _recall(self, job: Job) -> None:
        """Find the longest cached prefix and hold its slots. The last prompt token is always fed, for its logits."""
        best = NOTHING.slots
        for parent in job.parents:
            entry = self.cache.find(parent)
            if entry is None:
                job.misses += len(parent) > 1  # before the first step, nothing can have been cached
            elif (length := min(shared_prefix(entry.ids, job.ids), len(job.ids) - 1)) > len(best):
                best = entry.slots[:length]
        self.cache.hold(best)
        job.slots, job.known = best, len(best)

    def _prefill(self) -> torch.Tensor:
        """Feed the part of each prompt that is not cached. Returns the logits after the last token, [jobs, vocabulary]."""
        known = [job.slots for job in self.jobs]
        if width := max(map(len, known)):
            slots = np.zeros((len(known), width), np.int64)  # slot 0 is padding
            for row, prefix in enumerate(known):
                slots[row, : len(prefix)] = prefix
            self.slab.load(self.cache.pool, self.passes.tensor(slots))
        fresh = [len(job.ids) - len(prefix) for job, prefix in zip(self.jobs, known, strict=True)]
        return torch.cat([self._feed(first, last, fresh[last - 1]) for first, last in _spans(fresh)])

    def _feed(self, first: int, last: int, queries: int) -> torch.Tensor:
        """Feed the new tokens of some rows, padded on the left to `queries`. Returns the logits after the last token."""
        columns = self.slab.data.shape[2]
        ids, positions = np.zeros((2, last - first, queries), np.int64)
        cells = np.empty((last - first, queries), np.int64)
        for row, job in enumerate(self.jobs[first:last]):
            new = np.arange(len(job.slots), len(job.ids))
            pad = queries - len(new)
            ids[row, pad:], positions[row, pad:] = job.ids[new], new
            cells[row, :pad] = (first + row + 1) * columns - 1
            cells[row, pad:] = (first + row) * columns + new
        logits = torch.empty(0)
        block = max(1, PREFILL_TOKENS // (last - first))
        for start in range(0, queries, block):
            part = slice(start, min(start + block, queries))
            where = self.passes.tensor(positions[:, part])
            width = int(positions[:, part].max()) + 1
            visible = torch.arange(width, device=self.passes.device) <= where[:, None, :, None]
            self.slab.aim(first, last, self.passes.tensor(cells[:, part]).flatten(), width)
            logits = self.passes.forward(self.passes.tensor(ids[:, part]), where, self.passes.additive(visible))
        return logits

    def _keep_prompts(self) -> None:
        """Move new keys and values to the pool, and keep each prompt under its parents' addresses."""
        columns = self.slab.data.shape[2]
        cells: list[NDArray[np.int64]] = []
        slots: list[Ints] = []
        for row, job in enumerate(self.jobs):
            if not job.parents and all(sample.address is None for sample in job.samples):
                continue
            if (new := self.cache.reserve(len(job.ids) - len(job.slots))) is None:
                continue
            job.kept = True
            cells.append(np.arange(len(job.slots), len(job.ids)) + row * columns)
            slots.append(new)
            job.slots = np.concatenate([job.slots, new])
            for parent in job.parents:
                self.cache.put(parent, Entry(job.ids, job.slots))
        self.passes.store(cells, slots)


class _Decoding:
    """Draws tokens until every row has ended. Row i holds sample `rows[i]` and has `ends[i]` tokens so far."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.passes, self.slab = batch, batch.passes, batch.slab
        self.rows = np.arange(len(batch.samples))

    def run(self, logits: torch.Tensor) -> None:
        """Fill the batch's tokens, log-probabilities, entropies and lengths."""
        batch = self.batch
        owners = self.passes.tensor(batch.owners)
        if len(batch.jobs) < len(batch.samples):
            self.slab.select(owners, batch.longest)
        seeds = np.array([sample.seed % 2**64 for sample in batch.samples], np.uint64)
        temperatures = np.array([sample.temperature for sample in batch.samples], np.float32)
        temperature = self.passes.tensor(temperatures)[:, None]
        # The column of each row's next token, which is also the token's position.
        self.ends = self.passes.tensor(np.array([len(job.ids) for job in batch.jobs]))[owners]
        self._measure()
        logits, alive = logits[owners], np.ones(len(batch.samples), bool)
        step = 0
        while True:
            drawn, chosen, entropy = draw(logits, temperature, uniform(seeds[self.rows], step))
            token = drawn.numpy(force=True)
            batch.tokens[self.rows[alive], step] = token[alive]
            batch.logprobs[self.rows[alive], step] = chosen.numpy(force=True)[alive]
            batch.entropies[self.rows[alive], step] = entropy.numpy(force=True)[alive]
            step += 1
            alive &= ~(batch.engine.stops[token] | (step >= batch.limits[self.rows]))
            batch.lengths[self.rows[~alive & (batch.lengths[self.rows] == 0)]] = step
            if not alive.any():
                break
            if 2 * alive.sum() <= len(alive):
                self._retire(~alive)
                staying = self.passes.tensor(np.flatnonzero(alive))
                drawn, temperature = drawn[staying], temperature[staying]
                self.slab.select(staying, batch.longest + step - 1)
                self.rows, self.ends, alive = self.rows[alive], self.ends[staying], alive[alive]
                self._measure()
            logits = self._advance(drawn, batch.longest + step)
        self._retire(np.ones(len(self.rows), bool))

    def _measure(self) -> None:
        """Cells and visible columns of the rows as they stand."""
        columns = self.slab.data.shape[2]
        self.cells = self.ends + torch.arange(len(self.rows), device=self.passes.device) * columns
        self.mask = self.passes.additive(torch.arange(columns, device=self.passes.device) < self.ends[:, None])

    def _advance(self, token: torch.Tensor, width: int) -> torch.Tensor:
        """Feed one token a row. Returns the logits, [rows, vocabulary]. Ended rows are fed too until they are dropped."""
        if width >= (columns := self.slab.data.shape[2]):
            self.slab.widen(columns + max(ROOM, columns // 2))
            self._measure()
        self.mask.view(-1).index_fill_(0, self.cells, 0.0)
        self.slab.aim(0, len(self.rows), self.cells, width)
        context = self.batch.engine.context
        positions = self.ends if context is None else self.ends.clamp(max=context - 1)
        logits = self.passes.forward(token[:, None], positions[:, None], self.mask[:, None, None, :width])
        self.ends = self.ends + 1
        self.cells = self.cells + 1
        return logits

    def _retire(self, leaving: NDArray[np.bool_]) -> None:
        """Cache prompt and completion of ended rows, without the last token, which was never fed."""
        batch, columns = self.batch, self.slab.data.shape[2]
        cells: list[NDArray[np.int64]] = []
        slots: list[Ints] = []
        for row in np.flatnonzero(leaving):
            index = int(self.rows[row])
            job, address = batch.jobs[int(batch.owners[index])], batch.samples[index].address
            count = int(batch.lengths[index]) - 1
            if address is None or not job.kept or (new := batch.cache.reserve(count)) is None:
                continue
            ids = np.concatenate([job.ids, batch.tokens[index, :count]])
            batch.cache.put(address, Entry(ids, np.concatenate([job.slots, new])))
            cells.append(np.arange(len(job.ids), len(ids)) + row * columns)
            slots.append(new)
        self.passes.store(cells, slots)
        for new in slots:  # after all rows, so that no slot is given to two of them
            batch.cache.release(new)


def _spans(fresh: list[int]) -> Iterator[tuple[int, int]]:
    """Cut ascending numbers of new tokens into stretches to be padded to their last, without doubling the work."""
    first = 0
    for last in range(1, len(fresh) + 1):
        full = last < len(fresh) and (last + 1 - first) * fresh[last] > PREFILL_TOKENS
        if last == len(fresh) or full or fresh[last] > 2 * fresh[first] + 8:
            yield first, last
            first = last
