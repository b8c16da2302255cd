# pyright: standard
"""A transformers model in this process: batched sampling with keys and values kept along the trees.

Invariants
----------
* A sample depends on its prompt, its seed and the weights, not on its neighbours: its uniform numbers are a hash of its
  seed and the position, inverted through the cumulated tempered distribution.
* What is kept changes what is computed, never what comes out (up to rounding): log-probabilities are those of a plain
  forward pass, and the same calls give the same bits.
* `prefilled + reused` is the number of prompt tokens, summed over the samples.

A call goes prompt by prompt, not sample by sample: requests with equal prompts are one job. A job's longest known prefix
is loaded from what is kept under its parent's address, the rest of the prompt is fed (jobs of like length together), and
the row is repeated for its samples. Then all rows advance together, a token a step; finished rows are dropped when
they are half of the batch. The parent's address keeps the prompt, for siblings that come later; a sample's address keeps
prompt and completion, for the steps that follow.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from spark_rl.contracts import ModelState
from spark_rl.engines.local.cache import NOTHING, Entry, Ints, Layout, PrefixCache, Slab, shared_prefix
from spark_rl.engines.local.sampling import draw, uniform
from spark_rl.errors import PolicyFailure, PromptTooLong, UsageError
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.types import Completion, Cost, Request

__all__ = ["BATCH_TOKENS", "LocalEngine"]

BATCH_TOKENS = 131072
"""Most tokens, room for completions included, in one running batch."""
PREFILL_TOKENS = 4096
"""Most tokens, padding included, of one forward pass over prompts."""
ROOM = 32
"""Columns set aside for completions at first; a batch that needs more is widened."""


@dataclass(slots=True)
class _Sample:
    """One completion to draw, and where it goes."""

    request: int
    number: int
    seed: int
    address: Hashable | None
    temperature: float
    limit: int
    """Most tokens."""


@dataclass(slots=True)
class _Job:
    """One prompt, once, however many samples follow it."""

    ids: Ints
    samples: list[_Sample] = field(default_factory=list[_Sample])
    parents: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    slots: Ints = field(default_factory=lambda: NOTHING.slots)
    """Pool slots, held by the job, of the known prefix, and once it is kept, of the whole prompt."""
    kept: bool = False
    known: int = 0
    """Tokens of the prompt whose keys and values were kept."""
    misses: int = 0
    """Parents under whose address nothing was kept any more."""

    @property
    def columns(self) -> int:
        """Most tokens of a row."""
        return len(self.ids) + max(sample.limit for sample in self.samples)


class LocalEngine:
    """Samples from a causal language model on the CPU or one GPU.

    The model may be the learner's own: then `load_weights` copies nothing. Sampling puts it in evaluation mode. What is kept
    moves log-probabilities by rounding errors, so whoever wants the same bits again clears before.
    """

    in_rounds = True
    """A large batch a round costs little more than a small one."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        cache_bytes: int = 2**30,
        batch_tokens: int = BATCH_TOKENS,
        version: int = 0,
    ) -> None:
        """Wrap a model, on whatever device it is.

        Args:
            model: a causal language model with full attention in every layer.
            tokenizer: decodes completions and names the end of a turn.
            cache_bytes: most memory of the keys and values kept between calls; 0 keeps nothing.
            batch_tokens: most tokens, room for completions included, in one running batch.
            version: of the model's weights.

        Raises:
            UsageError: the model's architecture or attention implementation is not one the engine can run.
        """
        config: Any = model.config
        if config._attn_implementation not in ("sdpa", "eager"):
            raise UsageError(f'model attention is "{config._attn_implementation}": load it with attn_implementation="sdpa"')
        self.model, self.tokenizer, self.batch_tokens = model.eval(), tokenizer, batch_tokens
        self.encoder, self.version = ChatEncoder(tokenizer), version
        self.layout = Layout.of(model)
        self.context: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
        self.stops = _stops(model, tokenizer)
        self.cache = PrefixCache(self.layout, cache_bytes)
        self.slab = Slab(self.layout)

    def clear(self) -> None:
        """Forget all keys and values: the weights have changed, or memory is wanted elsewhere."""
        self.cache.clear()
        self.slab = Slab(self.layout)

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Take over weights, but for those that are the model's own, and forget all keys and values.

        Raises:
            PolicyFailure: they are of another model.
        """
        own = self.model.state_dict()
        if own.keys() != weights.keys() or any(own[name].shape != weights[name].shape for name in own):
            raise PolicyFailure(
                f"the weights of version {version} are not of the engine's model: their names or shapes differ"
            )
        with torch.no_grad():
            for name, mine in own.items():
                if mine.data_ptr() != weights[name].data_ptr():
                    mine.copy_(weights[name])
        self.version = version
        self.clear()

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completions in the order of requests and seeds; ends of turn are sampled tokens, cut from the text only.

        A completion ends with its turn, at `max_tokens`, or where the model's context does.

        Raises:
            UsageError: a request has no token ids.
            PromptTooLong: a prompt leaves no room for a token.
            PolicyFailure: the model's output is not finite.
        """
        self.model.eval()
        answers = [[Completion("")] * request.n for request in requests]
        try:
            with torch.no_grad():
                for jobs in self._batches(self._jobs(requests)):
                    for sample, completion in _Batch(self, jobs).run():
                        answers[sample.request][sample.number] = completion
        except BaseException:
            self.clear()  # slots held by the broken batch, or numbers that are not finite
            raise
        return answers

    def _jobs(self, requests: Sequence[Request]) -> list[_Job]:
        jobs: dict[tuple[int, ...], _Job] = {}
        for index, request in enumerate(requests):
            if not request.prompt:
                raise UsageError(f"task {request.task.id} has no prompt ids; the local engine needs an encoder")
            room = request.max_tokens if self.context is None else self.context - len(request.prompt)
            if room < 1:
                raise PromptTooLong(
                    f"a prompt of task {request.task.id} has {len(request.prompt)} tokens, and the model's context is "
                    f"{self.context}: lower prompt.limit"
                )
            if (job := jobs.get(request.prompt)) is None:
                job = jobs[request.prompt] = _Job(np.array(request.prompt, np.int32))
            if request.parent is not None:
                job.parents.append(request.parent)
            for number, seed in enumerate(request.seeds):
                address = request.children[number] if request.children else None
                limit = min(request.max_tokens, room)
                job.samples.append(_Sample(index, number, seed, address, request.temperature, limit))
        return [job for job in jobs.values() if job.samples]

    def _batches(self, jobs: list[_Job]) -> Iterator[list[_Job]]:
        """Jobs of like length together, each batch within `batch_tokens` (a job that exceeds it goes alone)."""
        batch: list[_Job] = []
        rows = columns = 0
        for job in sorted(jobs, key=lambda job: len(job.ids)):
            rows, columns = rows + len(job.samples), max(columns, job.columns)
            if batch and rows * columns > self.batch_tokens:
                yield batch
                batch, rows, columns = [], len(job.samples), job.columns
            batch.append(job)
        if batch:
            yield batch


class _Batch:
    """One running batch: rows of the slab and what becomes of them. Row i holds sample `rows[i]`."""

    def __init__(self, engine: LocalEngine, jobs: list[_Job]) -> None:
        self.engine, self.cache, self.slab = engine, engine.cache, engine.slab
        self.device = engine.layout.device
        for job in jobs:
            self._recall(job)
        # Like numbers of new tokens side by side, so that they are fed together with little padding.
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

    def run(self) -> Iterator[tuple[_Sample, Completion]]:
        """Prefill, decode, keep; each sample with its completion."""
        self.slab.open(len(self.samples), self.longest + min(int(self.limits.max()), ROOM) + 1)
        logits = self._prefill()
        self._keep_prompts()
        self._decode(logits)
        for job in self.jobs:
            self.cache.release(job.slots)
        engine = self.engine
        if not np.isfinite(self.logprobs).all():
            raise PolicyFailure("the model's log-probabilities are not finite: its weights diverged or its dtype overflows")
        for index, sample in enumerate(self.samples):
            ids = self.tokens[index, : self.lengths[index]].tolist()
            text = engine.tokenizer.decode(ids[:-1] if engine.stops[ids[-1]] else ids, clean_up_tokenization_spaces=False)
            logprobs = self.logprobs[index, : len(ids)].tolist()
            # They decide where to fork and train nothing: four decimals keep saved forests small.
            entropies = self.entropies[index, : len(ids)].round(4).tolist()
            cost = self._cost(index)
            yield sample, Completion(text, tuple(ids), tuple(logprobs), tuple(entropies), engine.version, cost=cost)

    def _cost(self, index: int) -> Cost:
        """What a sample cost: the first of a job bears what was computed for the job's prompt."""
        job, generated = self.jobs[self.owners[index]], int(self.lengths[index])
        if self.samples[index] is not job.samples[0]:
            return Cost(generated, reused=len(job.ids))
        return Cost(generated, len(job.ids) - job.known, job.known, job.misses)

    # -- prompts ----------------------------------------------------------------------------------------------------

    def _recall(self, job: _Job) -> None:
        """Find the longest kept prefix and hold its slots; the last prompt token is always fed, for its logits."""
        best = NOTHING.slots
        for parent in job.parents:
            entry = self.cache.find(parent)
            if entry is None:
                job.misses += len(parent) > 1  # before the first step, nothing can have been kept
            elif (length := min(shared_prefix(entry.ids, job.ids), len(job.ids) - 1)) > len(best):
                best = entry.slots[:length]
        self.cache.hold(best)
        job.slots, job.known = best, len(best)

    def _prefill(self) -> torch.Tensor:
        """Feed what is not known of each prompt; logits after the last token, [jobs, vocabulary]."""
        known = [job.slots for job in self.jobs]
        if width := max(map(len, known)):
            slots = np.zeros((len(known), width), np.int64)  # slot 0 is padding
            for row, prefix in enumerate(known):
                slots[row, : len(prefix)] = prefix
            self.slab.load(self.cache.pool, self._tensor(slots))
        fresh = [len(job.ids) - len(prefix) for job, prefix in zip(self.jobs, known, strict=True)]
        return torch.cat([self._feed(first, last, fresh[last - 1]) for first, last in _spans(fresh)])

    def _feed(self, first: int, last: int, queries: int) -> torch.Tensor:
        """Run what is new of some rows' prompts, padded on the left to `queries`; logits after the last token."""
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
            where = self._tensor(positions[:, part])
            width = int(positions[:, part].max()) + 1
            visible = torch.arange(width, device=self.device) <= where[:, None, :, None]
            self.slab.aim(first, last, self._tensor(cells[:, part]).flatten(), width)
            logits = self._forward(self._tensor(ids[:, part]), where, self._additive(visible))
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
        self._store(cells, slots)

    # -- completions ------------------------------------------------------------------------------------------------

    def _decode(self, logits: torch.Tensor) -> None:
        """Draw tokens until every row has ended."""
        owners = self._tensor(self.owners)
        if len(self.jobs) < len(self.samples):
            self.slab.select(owners, self.longest)
        self.rows = np.arange(len(self.samples))
        seeds = np.array([sample.seed % 2**64 for sample in self.samples], np.uint64)
        temperature = self._tensor(np.array([sample.temperature for sample in self.samples], np.float32))[:, None]
        # Where the next token of each row goes, which is also its position.
        self.ends = self._tensor(np.array([len(job.ids) for job in self.jobs]))[owners]
        self._measure()
        logits, alive = logits[owners], np.ones(len(self.samples), bool)
        step = 0
        while True:
            drawn, chosen, entropy = draw(logits, temperature, uniform(seeds[self.rows], step))
            token = drawn.numpy(force=True)
            self.tokens[self.rows[alive], step] = token[alive]
            self.logprobs[self.rows[alive], step] = chosen.numpy(force=True)[alive]
            self.entropies[self.rows[alive], step] = entropy.numpy(force=True)[alive]
            step += 1
            alive &= ~(self.engine.stops[token] | (step >= self.limits[self.rows]))
            self.lengths[self.rows[~alive & (self.lengths[self.rows] == 0)]] = step
            if not alive.any():
                break
            if 2 * alive.sum() <= len(alive):
                self._retire(~alive)
                staying = self._tensor(np.flatnonzero(alive))
                drawn, temperature = drawn[staying], temperature[staying]
                self.slab.select(staying, self.longest + step - 1)
                self.rows, self.ends, alive = self.rows[alive], self.ends[staying], alive[alive]
                self._measure()
            logits = self._advance(drawn, self.longest + step)
        self._retire(np.ones(len(self.rows), bool))

    def _measure(self) -> None:
        """Cells and visible columns of the rows as they stand."""
        columns = self.slab.data.shape[2]
        self.cells = self.ends + torch.arange(len(self.rows), device=self.device) * columns
        self.mask = self._additive(torch.arange(columns, device=self.device) < self.ends[:, None])

    def _advance(self, token: torch.Tensor, width: int) -> torch.Tensor:
        """Feed one token a row; logits, [rows, vocabulary]. Ended rows go along until they are dropped."""
        if width >= (columns := self.slab.data.shape[2]):
            self.slab.widen(columns + max(ROOM, columns // 2))
            self._measure()
        self.mask.view(-1).index_fill_(0, self.cells, 0.0)
        self.slab.aim(0, len(self.rows), self.cells, width)
        positions = self.ends if self.engine.context is None else self.ends.clamp(max=self.engine.context - 1)
        logits = self._forward(token[:, None], positions[:, None], self.mask[:, None, None, :width])
        self.ends = self.ends + 1
        self.cells = self.cells + 1
        return logits

    def _retire(self, leaving: NDArray[np.bool_]) -> None:
        """Keep prompt and completion of ended rows; the last token has no keys and values yet, for it was never fed."""
        columns = self.slab.data.shape[2]
        cells: list[NDArray[np.int64]] = []
        slots: list[Ints] = []
        for row in np.flatnonzero(leaving):
            index = self.rows[row]
            job, address, count = self.jobs[self.owners[index]], self.samples[index].address, int(self.lengths[index]) - 1
            if address is None or not job.kept or (new := self.cache.reserve(count)) is None:
                continue
            ids = np.concatenate([job.ids, self.tokens[index, :count]])
            self.cache.put(address, Entry(ids, np.concatenate([job.slots, new])))
            cells.append(np.arange(len(job.ids), len(ids)) + row * columns)
            slots.append(new)
        self._store(cells, slots)
        for new in slots:  # only now: one slot must not be written for two rows
            self.cache.release(new)

    # -- the model --------------------------------------------------------------------------------------------------

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        output = self.engine.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            use_cache=True,
            logits_to_keep=1,
            **{self.engine.layout.argument: self.slab},
        )
        return output.logits[:, -1]

    def _store(self, cells: list[NDArray[np.int64]], slots: list[Ints]) -> None:
        if cells:
            where, to = (self._tensor(np.concatenate(parts, dtype=np.int64)) for parts in (cells, slots))
            self.slab.store(self.cache.pool, where, to)

    def _additive(self, visible: torch.Tensor) -> torch.Tensor:
        """The mask as models add it to their scores. The least number, not infinity: no row may become NaN."""
        dtype = self.engine.layout.dtype
        return torch.zeros(visible.shape, dtype=dtype, device=self.device).masked_fill_(~visible, torch.finfo(dtype).min)

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _stops(model: Any, tokenizer: Any) -> NDArray[np.bool_]:
    """Which token ids end a turn, by the model's generation settings (one, several or none) and the tokenizer."""
    stops = np.zeros(model.get_output_embeddings().weight.shape[0], bool)
    ends = model.generation_config.eos_token_id if model.generation_config else None
    several = ends if isinstance(ends, list) else [ends]
    stops[[end for end in (*several, tokenizer.eos_token_id) if end is not None]] = True
    return stops


def _spans(fresh: list[int]) -> Iterator[tuple[int, int]]:
    """Cut ascending numbers of new tokens into stretches to be padded to their last, without doubling the work."""
    first = 0
    for last in range(1, len(fresh) + 1):
        full = last < len(fresh) and (last + 1 - first) * fresh[last] > PREFILL_TOKENS
        if last == len(fresh) or full or fresh[last] > 2 * fresh[first] + 8:
            yield first, last
            first = last
