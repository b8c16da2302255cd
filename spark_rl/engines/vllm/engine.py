"""A language model in vLLM: token ids in, token ids and log-probabilities out.

Invariants
----------
* A sample depends on its prompt, its seed and the weights, and is what the local engine would draw (`inside.Draw`).
* After new weights, the engine's log-probabilities are compared with the trainer's (`prove`); a difference stops
  the run. Keys and values of earlier weights, and of earlier forests, are never used: prompts carry the version and the
  number of the forest as a salt.
* If vLLM dies or hangs, it is started again with the weights that it had, and the requests under way are asked again. Their
  answers are the same, since seeds decide them.

Each request is on its own, so a tree that has its answers goes on while others wait.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, GenerationConfig

from spark_rl.contracts import ModelSource, ModelState
from spark_rl.engines.stops import stop_ids
from spark_rl.engines.vllm.process import Answer, Dead, Process, check_version
from spark_rl.engines.vllm.settings import Vllm
from spark_rl.engines.vllm.weights import prove, write
from spark_rl.errors import PolicyFailure, PromptTooLong, UsageError
from spark_rl.models import adapters
from spark_rl.models.load import load_pair, load_tokenizer
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.types import Completion, Cost, Request

__all__ = ["VllmEngine"]


class VllmEngine:
    """Samples from a causal language model in vLLM; fulfils `contracts.Engine`."""

    in_rounds = False
    """Trees ask each for itself: vLLM makes batches of whatever is under way."""

    def __init__(self, settings: Vllm, source: ModelSource) -> None:
        """Prepare; `start` starts vLLM.

        Args:
            settings: the engine's settings.
            source: the model, in memory or by its name.

        Raises:
            MissingExtra: vLLM is not installed.
            UsageError: vLLM has another version than those that are known to work, or there is no such model.
        """
        check_version()
        self.settings, self.version = settings, source.version
        self._place = tempfile.TemporaryDirectory(prefix="spark-rl-vllm-")
        self._folder = Path(self._place.name)
        if not source.loaded and adapters.holds_adapters(Path(source.name)):
            source = replace(source, loaded=load_pair(source))
        self._model, self.tokenizer = source.loaded or (None, load_tokenizer(source.name))
        self._name: Path | str = self._folder if self._model else source.name
        self._dtype = source.dtype
        self._weights: ModelState | None = None
        self.encoder = ChatEncoder(self.tokenizer)
        self._process: Process | None = None
        self._requests, self._forest = itertools.count(), 0
        self.answers, self._answered, self._restarts = 0, time.monotonic(), 0
        self._replacing = asyncio.Lock()

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start vLLM, and hand over the model where it is in memory.

        Raises:
            UsageError: vLLM cannot run the model.
            PolicyFailure: its log-probabilities are not those of the model.
        """
        if self._model is not None:
            cast(Any, self._model).config.save_pretrained(self._folder)
            self._weights = self._model.state_dict()
            generation = self._model.generation_config
        else:
            generation = _generation(self._name)
        config = cast(Any, AutoConfig).from_pretrained(self._name, local_files_only=Path(self._name).is_dir())
        self.stops = stop_ids(generation or config, self.tokenizer.eos_token_id)
        most: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
        self.context = min(self.settings.context, most or self.settings.context)
        if self._model is not None:
            self._dtype = str(self._model.dtype).removeprefix("torch.")
        elif self._dtype == "auto":
            self._dtype = str(config.dtype or torch.float32).removeprefix("torch.")
        await self._launch()

    async def _launch(self) -> None:
        """Start the process with the weights of the present version."""
        self._process = await asyncio.to_thread(
            Process, self.settings, self._name, dtype=self._dtype, context=self.context, empty=self._weights is not None
        )
        if self._weights is not None:
            await self._hand_over(self._process, self._weights)

    def stop(self) -> None:
        """End vLLM's processes and delete the files that it read."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._place.cleanup()

    # -- the contract -----------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Use no keys and values of the forest that has just grown: prompts of the next one have another salt."""
        self._forest, self._restarts = self._forest + 1, 0

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Hand weights to vLLM, and compare its log-probabilities with theirs.

        Raises:
            PolicyFailure: the weights are of another model, or vLLM's log-probabilities are not theirs.
        """
        if self._model is None:
            raise PolicyFailure("this engine has loaded a model by its name: new weights need a model in memory")
        assert self._process is not None
        self._weights, self.version = weights, version
        self.clear()
        await self._hand_over(self._process, weights)

    async def _hand_over(self, process: Process, state: ModelState) -> None:
        assert self._model is not None
        await process.load(await asyncio.to_thread(write, state, self._folder / "weights.safetensors"))
        salt = f"proof {next(self._requests)}"
        await prove(process, self._model, state, version=self.version, salt=salt)

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completions in the order of requests and seeds. The end of a turn is a sampled token, removed from the text only.

        Raises:
            UsageError: a request has no token ids.
            PromptTooLong: a prompt leaves no room for a token.
            PolicyFailure: vLLM died or hung again and again, or answered without log-probabilities.
        """
        asked = [self._sample(request, seed) for request in requests for seed in request.seeds]
        answers = iter(await _together(asked))
        return [[next(answers) for _ in request.seeds] for request in requests]

    async def _sample(self, request: Request, seed: int) -> Completion:
        if not request.prompt:
            raise UsageError(f"task {request.task.id} has no prompt ids; the engine vllm needs an encoder")
        most = min(request.max_tokens, self.context - len(request.prompt))
        if most < 1:
            raise PromptTooLong(
                f"a prompt of task {request.task.id} has {len(request.prompt)} tokens, and the engine's context is "
                f"{self.context}: lower prompt.limit, or raise engine.context if the model has room"
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
                queued=answer.queued,
            ),
        )

    # -- failure ----------------------------------------------------------------------------------------------------

    async def _ask(self, prompt: Sequence[int], seed: int, temperature: float, most: int) -> tuple[Answer, int]:
        """The answer, from another process where one was lost, and how many processes were replaced for it."""
        restarts = 0
        while True:
            process = self._process
            assert process is not None
            try:
                answer = await self._watched(
                    process.ask(
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
                restarts += await self._replace(process, lost)
            else:
                self.answers, self._answered = self.answers + 1, time.monotonic()
                return answer, restarts

    async def _watched(self, asking: Coroutine[None, None, Answer]) -> Answer:
        """The answer, unless nothing at all is answered for `settings.patience` seconds."""
        task, began = asyncio.ensure_future(asking), time.monotonic()
        try:
            while True:
                since = max(began, self._answered)
                done, _ = await asyncio.wait([task], timeout=since + self.settings.patience - time.monotonic())
                if done:
                    return task.result()
                if time.monotonic() - max(began, self._answered) >= self.settings.patience:
                    raise Dead(f"has answered nothing for {self.settings.patience:g} s")
        finally:
            task.cancel()

    async def _replace(self, process: Process, lost: Dead) -> int:
        """Start another process, unless another request that lost the same one has done so; how many were started."""
        async with self._replacing:
            if self._process is not process:
                return 0
            process.stop()
            if self._restarts == self.settings.restarts:
                raise PolicyFailure(
                    f"vLLM {lost}, {self._restarts} restarts included (engine.restarts): is there enough memory? A smaller "
                    "engine.cache_gb or engine.batch needs less"
                )
            self._restarts += 1
            await self._launch()
            return 1


async def _together(asked: Sequence[Coroutine[None, None, Completion]]) -> list[Completion]:
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
