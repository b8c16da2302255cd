"""A model behind the OpenAI chat protocol: hosted, vLLM, llama.cpp, Ollama, `transformers serve`.

Invariants
----------
* No request is paid for twice: an answer is stored (`answers.py`) before it is used, under the hash of everything that
  decides the answer. So a job that was killed resumes where it stopped, and a job that is run twice costs once.
* At most `concurrency` requests are under way. After a rate limit, a server error, a lost connection or a timeout the client
  library sends the request again, with pauses. When its retries are spent, the job stops with an error.
* A request that the server refuses for its content drops one tree, which is named. An error's text never becomes an action.
* Keys come from the environment and stay in this process.

Each sample is a request of its own with its own seed, because not every server gives several answers to one request. So a
sample's randomness does not depend on its neighbours.

All of this holds for a model that a server knows by its name. In training the model is in memory, and the server runs a copy
of it: then `engines/remote` has the word.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

from spark_rl.contracts import Engine, ModelSource, ModelState
from spark_rl.engines.answers import Answer, Answers, key_of
from spark_rl.errors import MissingExtra, PolicyFailure, UsageError, at_least
from spark_rl.types import Completion, Cost, Message, Request

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

__all__ = ["Endpoint", "OpenAIEngine", "Refused", "Server", "Usage", "connect", "gather"]

T = TypeVar("T")

REFUSALS = (400, 413, 422)
"""Status codes for a request whose content is refused; other codes concern the server or the key."""


class Refused(PolicyFailure):
    """The server refuses this request, but may answer others."""


@dataclass(frozen=True)
class Endpoint:
    """A server, and how it is asked."""

    base_url: str = ""
    """Where it is, as in http://localhost:8000/v1; empty: $OPENAI_BASE_URL, and without that OpenAI itself."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. Servers of one's own need none."""
    concurrency: int = 8
    """Most requests under way at once."""
    timeout: float = 300.0
    """Seconds to wait for an answer."""
    retries: int = 5
    """How often a request is sent again after a limit, a server's error, a cut connection or too long a wait."""
    body: str = ""
    """JSON object merged into every request, for what a server wants besides; null takes a field out. As in
    '{"max_tokens": null, "max_completion_tokens": 4000, "temperature": null}'."""
    answers: Path | None = None
    """File that keeps every answer; by default it lies beside what the command writes."""
    price_in: float = 0.0
    """Price of a million tokens read, for the cost in the last line."""
    price_out: float = 0.0
    """Price of a million tokens written."""

    def __post_init__(self) -> None:
        at_least("", self, concurrency=1, retries=0, price_in=0, price_out=0)
        if self.timeout <= 0:
            raise UsageError(f"timeout is {self.timeout}: it must be more than 0 seconds")
        _ = self.extra
        try:
            parts = urlsplit(self.where)
            good = not self.where or (parts.scheme in ("http", "https") and parts.hostname and (parts.port or True))
        except ValueError:
            good = False
        if not good:
            raise UsageError(f"base_url is {self.where}: it must be an address such as http://localhost:8000/v1")
        if "@" in self.where:  # error messages would show it
            raise UsageError(f"base_url holds a name or a password: put it into ${self.key_env}, which key_env names")

    @asynccontextmanager
    async def open(self, source: ModelSource) -> AsyncGenerator[Engine]:
        """An engine that asks the server for the model of this name; raises what `connect` does.

        A model in memory is one that is trained here. Its weights are pushed to the server, and token ids are exchanged
        (`engines/remote/server.py`); this raises what `Server.found` does.
        """
        if source.loaded:
            async with self._trained(source) as engine:
                yield engine
        else:
            async with connect(str(source.name), self, None) as server:
                yield OpenAIEngine(server)

    @asynccontextmanager
    async def _trained(self, source: ModelSource) -> AsyncGenerator[Engine]:
        from spark_rl.engines.remote.engine import RemoteEngine
        from spark_rl.engines.remote.server import Server as Host

        async with _client(self) as client:
            engine = RemoteEngine(source, partial(Host.found, client, self), patience=2 * self.timeout, restarts=0)
            try:
                await engine.start()
                yield engine
            finally:
                engine.stop()

    def memory(self) -> int:
        """0: the model runs on the server."""
        return 0

    @property
    def where(self) -> str:
        """The server's address; empty where the client library uses its own."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL", "")

    @property
    def extra(self) -> dict[str, object]:
        """`body`, parsed.

        Raises:
            UsageError: `body` is no JSON object.
        """
        try:
            value: object = json.loads(self.body or "{}")
        except ValueError as error:
            raise UsageError(f"body is no JSON ({error}): give an object such as '{{\"top_p\": 0.9}}'") from error
        if not isinstance(value, dict):
            raise UsageError(f"body is {self.body}: it must be a JSON object such as '{{\"top_p\": 0.9}}'")
        return cast("dict[str, object]", value)


@dataclass
class Usage:
    """Requests and tokens of a job. Answers that an earlier process had stored are counted separately."""

    asked: int = 0
    """Answers that came over the network."""
    kept: int = 0
    """Answers that were stored already."""
    prompt: int = 0
    """Tokens read, for all answers."""
    completion: int = 0
    """Tokens written, for all answers."""
    new_prompt: int = 0
    """Tokens read, for the answers that came over the network."""
    new_completion: int = 0
    """Tokens written, for the answers that came over the network."""

    def count(self, answer: Answer, *, new: bool) -> None:
        """Count an answer that is used."""
        self.prompt, self.completion = self.prompt + answer.prompt, self.completion + answer.completion
        if new:
            self.asked += 1
            self.new_prompt, self.new_completion = self.new_prompt + answer.prompt, self.new_completion + answer.completion
        else:
            self.kept += 1

    def line(self, endpoint: Endpoint) -> str:
        """Requests, tokens and cost in words."""
        text = f"{self.asked} requests ({self.kept} more answered by what was kept), "
        text += f"{self.prompt:,} tokens read, {self.completion:,} written"
        if endpoint.price_in or endpoint.price_out:
            whole = self.prompt * endpoint.price_in + self.completion * endpoint.price_out
            new = self.new_prompt * endpoint.price_in + self.new_completion * endpoint.price_out
            text += f", cost {whole / 1e6:.4f} ({new / 1e6:.4f} now)"
        return text


class Server:
    """One model of a server. `connect` creates it."""

    def __init__(self, client: AsyncOpenAI, model: str, endpoint: Endpoint, answers: Answers) -> None:
        self.model, self.endpoint, self.answers = model, endpoint, answers
        self.usage = Usage()
        self._client = client
        self._free = asyncio.Semaphore(endpoint.concurrency)
        # Of two equal requests at the same time, the second waits for the answer to the first.
        self._alone: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._broken: PolicyFailure | None = None

    async def ask(self, messages: Sequence[Message], *, max_tokens: int, temperature: float, **more: object) -> Answer:
        """The answer to a conversation.

        Args:
            messages: the conversation.
            max_tokens: most tokens of the answer.
            temperature: 0 means greedy.
            more: further fields of the request, such as `seed` and `response_format`; None leaves a field out.

        Raises:
            Refused: the server refuses this request for its content.
            PolicyFailure: the server cannot be reached, knows no such model or key, or fails again and again.
        """
        fields: dict[str, object] = {
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            **more,
        }
        body = {"model": self.model} | {k: v for k, v in (fields | self.endpoint.extra).items() if v is not None}
        # The seed distinguishes samples even where `body` removes it from the request.
        key = key_of(body | {"sample": more.get("seed")})
        async with self._alone[key]:
            answer = self.answers.get(key)
            if new := answer is None:
                async with self._free:
                    answer = await self._send(body)
                    self.answers.put(key, answer)
        self.usage.count(answer, new=new)
        return answer

    async def _send(self, body: Mapping[str, object]) -> Answer:
        """Send one request, unless the server failed before."""
        if self._broken:  # others wait in line for a server that is gone
            raise self._broken
        try:
            return await self._sent(body)
        except Refused:
            raise
        except PolicyFailure as error:
            self._broken = error
            raise

    async def _sent(self, body: Mapping[str, object]) -> Answer:
        import openai

        model = cast("str", body["model"])
        messages = cast("list[ChatCompletionMessageParam]", body["messages"])
        rest = {name: value for name, value in body.items() if name not in ("model", "messages")}
        for _ in range(self.endpoint.retries + 1):
            try:
                response = await self._client.chat.completions.create(model=model, messages=messages, extra_body=rest)
                answer = _answer(response)
            except openai.APIStatusError as error:
                raise self._explained(error) from None  # the error's request holds the key
            except openai.APIConnectionError as error:
                kind = "did not answer in time" if isinstance(error, openai.APITimeoutError) else "cannot be reached"
                raise PolicyFailure(
                    f"{self._client.base_url} {kind}, {self.endpoint.retries} retries included: is the server up, and are "
                    f"base_url and timeout ({self.endpoint.timeout:g} s) right? The same command goes on from here"
                ) from None
            except ValueError:
                answer = None  # the body is no JSON: the answer was cut off in transit
            if answer is not None:
                return answer
        raise PolicyFailure(
            f"{self._client.base_url} gave {self.endpoint.retries + 1} times what is no answer of the OpenAI chat protocol: "
            "is it such a server, and does base_url end as it should (often in /v1)?"
        )

    def _explained(self, error: APIStatusError) -> PolicyFailure:
        """The error for a status code, without the key."""
        detail = " ".join(str(error.message).split())[:300]
        if key := os.environ.get(self.endpoint.key_env):
            detail = detail.replace(key, "***")
        place, code = self._client.base_url, error.status_code
        if code in REFUSALS:
            return Refused(f"{place} refuses a request ({code}: {detail})")
        if code in (401, 403):
            return PolicyFailure(f"{place} does not accept the key ({code}): put a valid one in ${self.endpoint.key_env}")
        if code == 404:
            return PolicyFailure(f'{place} knows no model "{self.model}", or base_url is not right ({code}: {detail})')
        return PolicyFailure(
            f"{place} failed {self.endpoint.retries + 1} times ({code}: {detail}); the same command goes on from here"
        )


def _answer(response: ChatCompletion) -> Answer | None:
    """The answer in a response; None when the response holds none."""
    try:
        choice = response.choices[0]
        text, finish = choice.message.content, choice.finish_reason
    except (AttributeError, IndexError, TypeError):
        return None
    usage = getattr(response, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    return Answer(
        text=text if isinstance(text, str) else "",
        finish=str(finish or "stop"),
        prompt=int(getattr(usage, "prompt_tokens", 0) or 0),
        completion=int(getattr(usage, "completion_tokens", 0) or 0),
        cached=int(getattr(details, "cached_tokens", 0) or 0),
        model=str(getattr(response, "model", "") or ""),
        date=f"{datetime.now(UTC):%Y-%m-%d} UTC",
    )


def _client(endpoint: Endpoint) -> AsyncOpenAI:
    """The client library, set up for an endpoint.

    Raises:
        MissingExtra: the library is not installed.
    """
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise MissingExtra("A model behind the OpenAI protocol", "teacher") from error
    return AsyncOpenAI(
        # A self-hosted server needs no key, but the library requires one.
        api_key=os.environ.get(endpoint.key_env) or "none",
        base_url=endpoint.where or None,
        timeout=endpoint.timeout,
        max_retries=endpoint.retries,
    )


@asynccontextmanager
async def connect(model: str, endpoint: Endpoint, answers: Path | None) -> AsyncGenerator[Server]:
    """A connection to one model of a server, with its stored answers.

    Args:
        model: its name on the server.
        endpoint: the server.
        answers: file of the stored answers where the endpoint names none; None keeps the answers in memory.

    Raises:
        MissingExtra: the client library is not installed.
        UsageError: the model has no name, or another process has the file of answers.
    """
    client = _client(endpoint)
    if not model:
        raise UsageError("the teacher has no name: give --teacher MODEL, the name that its server knows")
    with Answers(endpoint.answers or answers) as stored:
        async with client:
            yield Server(client, model, endpoint, stored)


async def gather(work: Sequence[Awaitable[T]]) -> list[T]:
    """All results, in order. An error is raised only after the other requests have ended, because they are paid for."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return cast("list[T]", done)


@dataclass
class OpenAIEngine:
    """Samples from the model of a server."""

    server: Server
    encoder: None = None
    """The server reads text."""
    version: int = 0

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Send one request for each seed. A refused request gives a completion with `refused` set."""
        samples = [(request, seed) for request in requests for seed in request.seeds]
        done = iter(await gather([self._one(request, seed) for request, seed in samples]))
        return [[next(done) for _ in request.seeds] for request in requests]

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Raise an error: the weights of a server cannot be replaced.

        Raises:
            PolicyFailure: always.
        """
        raise PolicyFailure("a server's model that is known by its name cannot be given other weights")

    async def clear(self) -> None:
        """Do nothing: this process holds no memory of the model."""

    def account(self) -> str:
        """Requests, tokens and cost in words."""
        return self.server.usage.line(self.server.endpoint)

    async def _one(self, request: Request, seed: int) -> Completion:
        try:
            answer = await self.server.ask(
                request.messages,
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                seed=seed % 2**31,  # the range that every server accepts
            )
        except Refused as error:
            return Completion("", refused=str(error))
        # Tokens as the server counts them; a stored answer keeps its original cost.
        cost = Cost(answer.completion, answer.prompt - answer.cached, answer.cached)
        if answer.finish == "content_filter":
            return Completion("", refused=f"{self.server.model} was stopped by its server's filter", cost=cost)
        return Completion(answer.text, cost=cost)
