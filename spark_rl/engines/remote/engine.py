"""The engine of a model that runs elsewhere: token ids in, token ids and log-probabilities out.

Invariants
----------
* After new weights, the host's log-probabilities are compared with the trainer's (`prove`); a difference stops the run. Keys
  and values of earlier weights, and of earlier forests, are never used: prompts carry the version and the number of the
  forest as a salt.
* If the host dies or hangs, it is started again with the weights that it had, and the requests under way are asked again.
  Where seeds alone decide the answers, as with vLLM in a process of its own, the forest is the same.
* Adapters stay adapters: merged into weights of 16 bits, most of a small change would be rounded away.

Each request is on its own, so a tree that has its answers goes on while others wait.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, GenerationConfig

from spark_rl.contracts import ModelSource, ModelState
from spark_rl.engines.remote.host import Answer, Dead, Host
from spark_rl.engines.remote.weights import prove, write
from spark_rl.engines.stops import stop_ids
from spark_rl.errors import PolicyFailure, PromptTooLong, UsageError
from spark_rl.models import adapters
from spark_rl.models.load import load_pair, load_tokenizer
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.types import Completion, Cost, Request

__all__ = ["Launch", "Model", "RemoteEngine"]


@dataclass(frozen=True)
class Model:
    """The model that a host is started with."""

    name: Path | str
    """Its folder or hub name."""
    dtype: str
    """Precision of weights, keys and values."""
    longest: int | None
    """Most tokens that the model itself can read, where it says so."""
    empty: bool
    """Whether the folder has no weights, so that they come by `Host.load`."""
    rank: int
    """Rank of the adapters that come by `Host.load_adapters`; 0: none come."""
    cuda: bool
    """Whether the learner's copy is on a GPU."""
    exchange: Path
    """Folder for files that learner and host share."""


Launch = Callable[[Model], Awaitable[Host]]
"""Starts a host."""


class RemoteEngine:
    """Samples from a causal language model in a host; fulfils `contracts.Engine`."""

    in_rounds = False
    """Trees ask each for itself: the host makes batches of whatever is under way."""

    def __init__(self, source: ModelSource, launch: Launch, *, patience: float, restarts: int) -> None:
        """Prepare; `start` starts the host.

        Args:
            source: the model, in memory or by its name.
            launch: starts a host.
            patience: seconds without any answer after which the host counts as hung.
            restarts: how often a host that died or hung is started again while one forest grows.

        Raises:
            UsageError: there is no such model.
        """
        self.version, self._launch = source.version, launch
        self._patience, self._most_restarts = patience, restarts
        self._place = tempfile.TemporaryDirectory(prefix="spark-rl-engine-")
        self._folder = Path(self._place.name)
        if not source.loaded and adapters.holds_adapters(Path(source.name)):
            source = replace(source, loaded=load_pair(source))
        self._source = source
        self._learnt, self.tokenizer = source.loaded or (None, load_tokenizer(source.name))
        self._weights: ModelState | None = None
        self.encoder = ChatEncoder(self.tokenizer)
        self._host: Host | None = None
        self._asleep = self._weightless = False
        self._requests, self._forest = itertools.count(), 0
        self.answers, self._answered, self._restarts = 0, time.monotonic(), 0
        self._replacing = asyncio.Lock()

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the host, and hand over the model where it is in memory.

        Raises:
            UsageError: the host cannot run the model.
            PolicyFailure: its log-probabilities are not those of the model.
        """
        self._model = await asyncio.to_thread(self._described)
        await self._begin()

    def _described(self) -> Model:
        """The model as the host needs it; writes what the host reads."""
        learnt, name, dtype = self._learnt, self._source.name, self._source.dtype
        rank = 0
        if learnt is not None:
            name, self._weights = self._folder / "model", learnt.state_dict()
            cast(Any, learnt).config.save_pretrained(name)
            if rank := adapters.rank(learnt):
                write(adapters.base_state(self._weights), name / "model.safetensors")
        config = cast(Any, AutoConfig).from_pretrained(name, local_files_only=Path(name).is_dir())
        generation = learnt.generation_config if learnt is not None else _generation(name)
        self.stops = stop_ids(generation or config, self.tokenizer.eos_token_id)
        if learnt is not None:
            dtype = str(learnt.dtype).removeprefix("torch.")
        elif dtype == "auto":
            dtype = str(config.dtype or torch.float32).removeprefix("torch.")
        return Model(
            name=name,
            dtype=dtype,
            longest=getattr(config.get_text_config(), "max_position_embeddings", None),
            empty=learnt is not None and not rank,
            rank=rank,
            cuda=learnt is not None and learnt.device.type == "cuda",
            exchange=self._folder,
        )

    async def _begin(self) -> None:
        """Start a host with the weights of the present version."""
        self._host = await self._launch(self._model)
        self._asleep = self._weightless = False
        if self._weights is not None:
            await self._hand_over(self._host, self._weights)

    def stop(self) -> None:
        """End the host and delete the files that it read."""
        if self._host is not None:
            self._host.stop()
            self._host = None
        self._place.cleanup()

    # -- the contract -----------------------------------------------------------------------------------------------

    async def clear(self) -> None:
        """Use no keys and values of the forest that has just grown, and leave the memory to the learner."""
        self._forest, self._restarts = self._forest + 1, 0
        if self._host is not None and not self._asleep and self._learnt is not None:
            try:
                self._weightless = await self._host.rest()
            except Dead:
                return  # the next request finds out
            self._asleep = True

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Hand weights to the host, and compare its log-probabilities with theirs.

        Raises:
            PolicyFailure: the weights are of another model, or the host's log-probabilities are not theirs.
        """
        if self._learnt is None:
            raise PolicyFailure("this engine has loaded a model by its name: new weights need a model in memory")
        assert self._host is not None
        self._weights, self.version = weights, version
        self._forest, self._restarts = self._forest + 1, 0
        try:
            await self._hand_over(self._host, weights)
        except Dead as lost:
            await self._replace(self._host, lost)
        self._asleep = self._weightless = False

    async def _hand_over(self, host: Host, state: ModelState) -> None:
        assert self._learnt is not None
        if self._model.rank:
            folder = self._folder / f"adapters-{next(self._requests)}"
            folder.mkdir()
            await asyncio.to_thread(adapters.save, self._learnt, folder, state)
            await host.load_adapters(folder)
        else:
            await host.load(state)
        salt = f"proof {next(self._requests)}"
        await prove(host, self._learnt, state, version=self.version, salt=salt)

    async def _awake(self) -> None:
        """Wake the host up after a rest, with its weights."""
        host = self._host
        assert host is not None
        try:
            async with self._replacing:
                if not self._asleep:  # another request has done it
                    return
                if self._weightless and self._weights is not None:
                    await self._hand_over(host, self._weights)
                else:
                    await host.wake()
                self._asleep = self._weightless = False
        except Dead as lost:
            await self._replace(host, lost)

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
        assert self._host is not None
        if not request.prompt:
            raise UsageError(f"task {request.task.id} has no prompt ids; this engine needs an encoder")
        most = min(request.max_tokens, self._host.context - len(request.prompt))
        if most < 1:
            raise PromptTooLong(
                f"a prompt of task {request.task.id} has {len(request.prompt)} tokens, and the engine's context is "
                f"{self._host.context}: lower prompt.limit, or raise engine.context if the model has room"
            )
        answer, restarts = await self._ask(request.prompt, seed, request.temperature, most)
        text = answer.ids[:-1] if answer.ids[-1] in self.stops else answer.ids
        return Completion(
            self.tokenizer.decode(text),
            ids=answer.ids,
            logprobs=answer.logprobs,
            entropies=answer.entropies,
            version=self.version,
            cost=Cost(
                generated=len(answer.ids),
                prefilled=len(request.prompt) - answer.cached,
                reused=answer.cached,
                preempted=answer.preempted,
                restarts=restarts,
                queued=round(1000 * answer.queued),
            ),
        )

    # -- failure ----------------------------------------------------------------------------------------------------

    async def _ask(self, prompt: Sequence[int], seed: int, temperature: float, most: int) -> tuple[Answer, int]:
        """The answer, from another host where one was lost, and how many hosts were replaced for it."""
        restarts = 0
        while True:
            host = self._host
            assert host is not None
            try:
                answer = await self._watched(
                    host.ask(
                        prompt,
                        seed=seed,
                        temperature=temperature,
                        most=most,
                        stops=self.stops,
                        salt=f"{self.version} {self._forest}",
                        name=str(next(self._requests)),
                    )
                )
            except Dead as lost:
                restarts += await self._replace(host, lost)
            else:
                self.answers, self._answered = self.answers + 1, time.monotonic()
                return answer, restarts

    async def _watched(self, asking: Coroutine[Any, Any, Answer]) -> Answer:
        """The answer, unless nothing at all is answered for `patience` seconds."""
        task, began = asyncio.ensure_future(asking), time.monotonic()
        try:
            while True:
                since = max(began, self._answered)
                done, _ = await asyncio.wait([task], timeout=since + self._patience - time.monotonic())
                if done:
                    return task.result()
                if time.monotonic() - max(began, self._answered) >= self._patience:
                    raise Dead(f"has answered nothing for {self._patience:g} s")
        finally:
            task.cancel()

    async def _replace(self, host: Host, lost: Dead) -> int:
        """Start another host, unless another request that lost the same one has done so; how many were started."""
        async with self._replacing:
            if self._host is not host:
                return 0
            host.stop()
            if self._restarts == self._most_restarts:
                raise PolicyFailure(
                    f"the engine {lost}, {self._restarts} restarts included (engine.restarts): is there enough memory? A "
                    "smaller engine.cache_gb or engine.batch needs less"
                )
            self._restarts += 1
            await self._begin()
            return 1


async def _together(asked: Sequence[Coroutine[Any, Any, Completion]]) -> list[Completion]:
    """All answers; the first error cancels the other requests."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _generation(name: Path | str) -> object:
    """The settings of generation of a folder or hub name; None where it has none."""
    try:
        return cast(Any, GenerationConfig).from_pretrained(name, local_files_only=Path(name).is_dir())
    except OSError:
        return None
