"""A transformers model in this process: batched sampling with keys and values kept along the trees.

Invariants
----------
* A sample depends on its prompt, its seed and the weights, not on its neighbours: its uniform numbers are a hash of its
  seed and the position, inverted through the cumulated tempered distribution.
* The cache changes how much is computed, never the result (up to rounding): log-probabilities are those of a plain forward
  pass, and the same calls give the same bits.
* `prefilled + reused` is the number of prompt tokens, summed over the samples.

Requests with equal prompts are one job. A job's longest cached prefix is found under its parent's address, and what the jobs
of a batch have in common is read once (`batch`). Then all rows advance together, one token a step (`decoding`). The cache
stores the prompt under the parent's address, for later siblings. It stores prompt and completion under the sample's address,
for the steps that follow. Attention is the engine's own (`attention`); all else is the model's own code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from spark_rl.common.heap import give_back
from spark_rl.contracts import ModelState, Tokenizer
from spark_rl.engines.local.attention import attending, check_attention
from spark_rl.engines.local.batch import Batch
from spark_rl.engines.local.cache import Layout, PrefixCache
from spark_rl.engines.local.jobs import Job, Sample
from spark_rl.engines.local.levels import Slab
from spark_rl.engines.local.packed_weights import PackedWeights
from spark_rl.engines.stops import stop_ids
from spark_rl.errors import PolicyFailure, PromptTooLong, UsageError
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.types import Completion, Request

__all__ = ["BATCH_TOKENS", "LocalEngine"]

BATCH_TOKENS = 131072
"""Most tokens, room for completions included, in one running batch."""


class LocalEngine:
    """Samples from a causal language model on the CPU or one GPU.

    The model may be the learner's own: then `load_weights` copies nothing. Sampling puts the model in evaluation mode.
    Cached keys and values change log-probabilities by rounding errors: call `clear` first to get the same bits again.
    """

    in_rounds = True
    """Trees ask in rounds, because a large batch costs little more than a small one."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
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
            version: version of the model's weights.

        Raises:
            UsageError: the engine cannot run the model's architecture or attention implementation.
        """
        attention: object = getattr(model.config, "_attn_implementation", None)  # its only name, which is private
        if attention not in ("sdpa", "eager"):
            raise UsageError(f'model attention is "{attention}": load it with attn_implementation="sdpa"')
        self.model, self.tokenizer, self.batch_tokens = model.eval(), tokenizer, batch_tokens
        self.encoder, self.version = ChatEncoder(tokenizer), version
        self.layout = Layout.of(model)
        text_config = model.config.get_text_config()  # pyright: ignore[reportUnknownMemberType]  its arguments have no types
        self.context: int | None = getattr(text_config, "max_position_embeddings", None)
        self.stops = _stops(model, tokenizer)
        check_attention(model, self.layout)
        self.cache = PrefixCache(self.layout, cache_bytes)
        self.slabs = self._slabs()
        self.packed: PackedWeights | None = None

    async def clear(self) -> None:
        """Free the memory of the forest that has just grown."""
        self.forget()

    def forget(self) -> None:
        """Forget all that was computed of the weights: they have changed, or the memory is needed elsewhere."""
        self.cache.clear()
        self.slabs = self._slabs()
        self.packed = None
        give_back()

    def _slabs(self) -> tuple[Slab, Slab, Slab]:
        return Slab(self.layout), Slab(self.layout), Slab(self.layout)

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Copy weights into the model (those that share its memory are not copied), and forget all keys and values.

        Raises:
            PolicyFailure: the weights are of another model.
        """
        own = self.model.state_dict()
        differ = f"the weights of version {version} are not of the engine's model: their names or shapes differ"
        if own.keys() != weights.keys():
            raise PolicyFailure(differ)
        with torch.no_grad():
            for name, mine in own.items():
                if (given := weights[name]).shape != mine.shape:  # asked for once: it may have to be gathered
                    raise PolicyFailure(differ)
                if mine.data_ptr() != given.data_ptr():
                    mine.copy_(given)
        self.version = version
        self.forget()

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completions in the order of requests and seeds. The end of a turn is a sampled token, removed from the text only.

        A completion stops at the end of its turn, at `max_tokens`, or at the end of the model's context.

        Raises:
            UsageError: a request has no token ids.
            PromptTooLong: a prompt leaves no room for a token.
            PolicyFailure: the model's output is not finite.
        """
        self.model.eval()
        if self.packed is None:
            self.packed = PackedWeights(self.model)
        answers = [[Completion("")] * request.n for request in requests]
        try:
            with torch.no_grad(), self.packed.used(), attending(self.model):
                for jobs in self._batches(self._jobs(requests)):
                    for sample, completion in Batch(self, jobs).run():
                        answers[sample.request][sample.number] = completion
        except BaseException:
            self.forget()  # slots held by the broken batch, or numbers that are not finite
            raise
        return answers

    def _jobs(self, requests: Sequence[Request]) -> list[Job]:
        jobs: dict[tuple[int, ...], Job] = {}
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
                job = jobs[request.prompt] = Job(np.array(request.prompt, np.int32))
            if request.parent is not None:
                job.parents.append(request.parent)
            for number, seed in enumerate(request.seeds):
                address = request.children[number] if request.children else None
                limit = min(request.max_tokens, room)
                job.samples.append(Sample(index, number, seed, address, request.temperature, limit))
        return [job for job in jobs.values() if job.samples]

    def _batches(self, jobs: list[Job]) -> Iterator[list[Job]]:
        """Jobs of similar length together, each batch within `batch_tokens` (a job that exceeds it goes alone)."""
        batch: list[Job] = []
        rows = columns = 0
        for job in sorted(jobs, key=lambda job: len(job.ids)):
            rows, columns = rows + len(job.samples), max(columns, job.columns)
            if batch and rows * columns > self.batch_tokens:
                yield batch
                batch, rows, columns = [], len(job.samples), job.columns
            batch.append(job)
        if batch:
            yield batch


def _stops(model: PreTrainedModel, tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Which token ids end a turn."""
    head = cast("torch.nn.Linear", model.get_output_embeddings())  # or an adapter around one
    stops = np.zeros(head.weight.shape[0], bool)
    stops[list(stop_ids(model.generation_config, tokenizer.eos_token_id))] = True
    return stops
