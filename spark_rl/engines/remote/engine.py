"""The engine of a model that runs elsewhere: token ids in, token ids and log-probabilities out.

Invariants
----------
* After new weights, the host's log-probabilities are compared with the trainer's (`prove`); a difference stops the run. Keys
  and values of earlier weights, and of earlier forests, are never used: prompts carry the version and the number of the
  forest as a salt.
* A host that dies or hangs is started again with the weights that it had (`kept.py`).
* Adapters stay adapters: merged into weights of 16 bits, most of a small change would be rounded away.

Each request is on its own, so a tree that has its answers goes on while others wait.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, GenerationConfig

from spark_rl.contracts import LanguageModel, ModelSource, ModelState
from spark_rl.engines.remote.host import Answer, Dead, Host, Launch, Model
from spark_rl.engines.remote.kept import Kept
from spark_rl.engines.remote.weights import hand_over, write
from spark_rl.engines.stops import stop_ids
from spark_rl.errors import PolicyFailure, PromptTooLong, UsageError
from spark_rl.models import adapters
from spark_rl.models.load import load_pair, load_tokenizer
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.types import Completion, Cost, Request

__all__ = ["RemoteEngine"]


class RemoteEngine:
    """Samples from a causal language model in a host; fulfils `contracts.Engine`."""

    in_rounds = False
    """Trees ask each for itself: the host makes batches of whatever is under way."""

    def __init__(self, source: ModelSource, launch: Launch, *, patience: float, restarts: int) -> None:
        """Prepare; `start` starts the host.

        Args:
            source: the model, in memory or by its name.
            launch: starts a host.
            patience: see `Kept`.
            restarts: see `Kept`.
        """
        self.version, self._launch = source.version, launch
        self._place = tempfile.TemporaryDirectory(prefix="spark-rl-engine-")
        self._folder = Path(self._place.name)
        if not source.loaded and adapters.holds_adapters(Path(source.name)):
            source = replace(source, loaded=load_pair(source))
        self._source = source
        self._learnt, self.tokenizer = source.loaded or (None, load_tokenizer(source.name))
        self._weights = self._learnt.state_dict() if self._learnt is not None else None
        self.encoder = ChatEncoder(self.tokenizer)
        self.kept = Kept(self._begun, patience=patience, restarts=restarts)
        self._asleep = self._weightless = False
        self._forest, self._handed = 0, itertools.count()

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the host, and hand over the model where it is in memory.

        Raises:
            UsageError: the host cannot run the model.
            PolicyFailure: its log-probabilities are not those of the model.
        """
        self._model, generation = await asyncio.to_thread(_described, self._source, self._learnt, self._folder)
        self.stops = stop_ids(generation, self.tokenizer.eos_token_id)
        await self.kept.start()

    async def _begun(self) -> Host:
        """A host with the weights of the present version."""
        host = await self._launch(self._model)
        self._asleep = self._weightless = False
        if self._weights is not None:
            await self._hand_over(host, self._weights)
        return host

    def stop(self) -> None:
        """End the host and delete the files that it read."""
        self.kept.stop()
        self._place.cleanup()

    # -- weights and memory -----------------------------------------------------------------------------------------

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Hand weights to the host, and compare its log-probabilities with theirs.

        Raises:
            PolicyFailure: the weights are of another model, or the host's log-probabilities are not theirs.
        """
        if self._learnt is None:
            raise PolicyFailure("this engine has loaded a model by its name: new weights need a model in memory")
        self._weights, self.version = weights, version
        self._next_forest()
        host = self.kept.host
        try:
            await self._hand_over(host, weights)
        except Dead as lost:
            await self.kept.replace(host, lost)
        self._asleep = self._weightless = False

    async def _hand_over(self, host: Host, state: ModelState) -> None:
        assert self._learnt is not None
        await hand_over(host, self._learnt, state, self._folder / str(next(self._handed)), version=self.version)

    async def clear(self) -> None:
        """Use no keys and values of the forest that has just grown, and leave the memory to the learner."""
        self._next_forest()
        if not self._asleep and self._learnt is not None:
            try:
                self._weightless = await self.kept.host.rest()
            except Dead:
                return  # the next request finds out
            self._asleep = True

    def _next_forest(self) -> None:
        self._forest += 1
        self.kept.renew()

    async def _awake(self) -> None:
        """Wake the host up after a rest, with its weights."""
        host = self.kept.host
        try:
            async with self.kept.lock:
                if not self._asleep:  # another request has done it
                    return
                if self._weightless and self._weights is not None:
                    await self._hand_over(host, self._weights)
                else:
                    await host.wake()
                self._asleep = self._weightless = False
        except Dead as lost:
            await self.kept.replace(host, lost)

    # -- samples ----------------------------------------------------------------------------------------------------

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completions in the order of requests and seeds. The end of a turn is a sampled token, removed from the text only.

        Raises:
            UsageError: a request has no token ids.
            PromptTooLong: a prompt leaves no room for a token.
            PolicyFailure: the host died or hung again and again, or answered without log-probabilities.
        """
        if self._asleep:
            await self._awake()
        asked = [self._sample(request, seed) for request in requests for seed in request.seeds]
        answers = iter(await _together(asked))
        return [[next(answers) for _ in request.seeds] for request in requests]

    async def _sample(self, request: Request, seed: int) -> Completion:
        prompt, context = request.prompt, self.kept.host.context
        if not prompt:
            raise UsageError(f"task {request.task.id} has no prompt ids; this engine needs an encoder")
        most = min(request.max_tokens, context - len(prompt))
        if most < 1:
            raise PromptTooLong(
                f"a prompt of task {request.task.id} has {len(prompt)} tokens, and the engine's context is {context}: lower "
                "prompt.limit, or raise engine.context if the model has room"
            )
        answer, restarts = await self.kept.ask(
            prompt,
            seed=seed,
            temperature=request.temperature,
            most=most,
            stops=self.stops,
            salt=f"{self.version} {self._forest}",
        )
        text = answer.ids[:-1] if answer.ids[-1] in self.stops else answer.ids
        return Completion(
            self.tokenizer.decode(text),
            ids=answer.ids,
            logprobs=answer.logprobs,
            entropies=answer.entropies,
            version=self.version,
            cost=_cost(answer, len(prompt), restarts),
        )


def _cost(answer: Answer, prompt: int, restarts: int) -> Cost:
    """What an answer to a prompt of so many tokens cost."""
    return Cost(
        generated=len(answer.ids),
        prefilled=prompt - answer.cached,
        reused=answer.cached,
        preempted=answer.preempted,
        restarts=restarts,
        queued=round(1000 * answer.queued),
    )


def _described(source: ModelSource, learnt: LanguageModel | None, folder: Path) -> tuple[Model, object]:
    """The model as the host needs it, and its settings of generation; writes into the folder what the host reads.

    Raises:
        UsageError: the model has no configuration.
    """
    name, dtype, rank = source.name, source.dtype, 0
    if learnt is not None:
        name, dtype = folder / "model", str(learnt.dtype).removeprefix("torch.")
        cast(Any, learnt).config.save_pretrained(name)
        if rank := adapters.rank(learnt):
            write(adapters.base_state(learnt.state_dict()), name / "model.safetensors")
    config = cast(Any, AutoConfig).from_pretrained(name, local_files_only=Path(name).is_dir())
    if dtype == "auto":
        dtype = str(config.dtype or torch.float32).removeprefix("torch.")
    model = Model(
        name=name,
        dtype=dtype,
        longest=getattr(config.get_text_config(), "max_position_embeddings", None),
        empty=learnt is not None and not rank,
        rank=rank,
        cuda=learnt is not None and learnt.device.type == "cuda",
        exchange=folder,
    )
    return model, (learnt.generation_config if learnt is not None else _generation(name)) or config


def _generation(name: Path | str) -> object:
    """The settings of generation of a folder or hub name; None where it has none."""
    try:
        return cast(Any, GenerationConfig).from_pretrained(name, local_files_only=Path(name).is_dir())
    except OSError:
        return None


async def _together(asked: Sequence[Coroutine[Any, Any, Completion]]) -> list[Completion]:
    """All answers; the first error cancels the other requests."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
