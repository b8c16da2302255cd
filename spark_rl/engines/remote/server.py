"""A server that takes and gives token ids, as the place where the trained model runs: `--engine openai` in training.

Invariants
----------
* Answers hold the ids and log-probabilities of the sampled tokens, at the request's temperature; a server that leaves them
  out is refused by name.
* The server has the weights that were last pushed. It is told their version, and asked for it before and after each forest,
  so that a server that was started again in between is found out.

Requests go to `/v1/completions` with token ids as the prompt and `return_token_ids`, which vLLM and servers like it
understand. Weights are pushed by vLLM's own calls (`/collective_rpc`, and `/v1/load_lora_adapter` for adapters). A call
names a file, so the server must see this machine's files. The calls exist where vLLM runs with `VLLM_SERVER_DEV_MODE=1` and
`VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`. They let anybody who reaches the server change its model, so an address on another
machine is refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from spark_rl.contracts import ModelState
from spark_rl.engines.remote.host import Answer, Model
from spark_rl.engines.remote.weights import write
from spark_rl.errors import PolicyFailure, UsageError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Server", "is_local"]

UNKNOWN = (404, 405)
"""Status codes of a server that does not have a call."""


class _Where(Protocol):
    """The settings that this module needs of `openai.Endpoint`."""

    @property
    def concurrency(self) -> int: ...

    @property
    def retries(self) -> int: ...


def is_local(address: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server:
    """A model on a server; fulfils `remote.host.Host`."""

    def __init__(self, client: AsyncOpenAI, where: _Where, model: Model, name: str, context: int) -> None:
        """`Server.found` makes it."""
        self._client, self._model = client, model
        self._name, self._retries = name, where.retries
        self.context = context
        self.based = False  # an earlier run may have left other weights
        self._free = asyncio.Semaphore(where.concurrency)
        self._adapters = ""
        self._version = ""
        """The version that the server was told; empty where it keeps none."""
        self._root = str(client.base_url).rstrip("/").removesuffix("/v1")
        """Address of vLLM's own calls."""

    @classmethod
    async def found(cls, client: AsyncOpenAI, where: _Where, model: Model) -> Server:
        """The server's only model.

        Raises:
            UsageError: the server is on another machine, or has several models.
            PolicyFailure: it cannot be reached.
        """
        if not is_local(str(client.base_url)):
            raise UsageError(
                f"engine.base_url is {client.base_url}: weights are pushed to this machine alone; start the server here, at "
                "http://127.0.0.1:8000/v1, or take --engine vllm"
            )
        listed: list[Any] = (await _answered(client, client.models.list())).data
        whole = [one for one in listed if not getattr(one, "parent", None)]
        if len(whole) != 1:
            names = ", ".join(str(one.id) for one in whole) or "none"
            raise UsageError(f"{client.base_url} has several models ({names}): a server that is trained has one")
        longest = getattr(whole[0], "max_model_len", None) or model.longest
        if not longest:
            raise UsageError(f"{client.base_url} does not tell max_model_len: it is not a server that can be trained")
        return cls(client, where, model, str(whole[0].id), int(longest))

    async def ask(
        self,
        prompt: Sequence[int],
        *,
        seed: int,
        temperature: float,
        most: int,
        stops: Collection[int],
        salt: str,
        name: str,
    ) -> Answer:
        """One completion; see `Host.ask`."""
        del name
        body = {
            "return_token_ids": True,
            "ignore_eos": True,
            "stop_token_ids": sorted(stops),
            "cache_salt": f"{self._version} {salt}",
            "top_p": 1.0,  # a server may have other defaults, from the model's settings of generation
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        async with self._free:
            answer: Any = await _answered(
                self._client,
                self._client.completions.create(
                    model=self._adapters or self._name,
                    prompt=list(prompt),
                    max_tokens=most,
                    temperature=temperature,
                    seed=seed % 2**63,
                    logprobs=0,
                    extra_body=body,
                ),
            )
        (choice,) = answer.choices
        ids, logprobs = getattr(choice, "token_ids", None), getattr(choice.logprobs, "token_logprobs", None)
        if not ids or not logprobs or len(ids) != len(logprobs):
            raise PolicyFailure(
                f"{self._client.base_url} answers without token ids and log-probabilities (return_token_ids, logprobs): it "
                "can play, but not be trained"
            )
        details = getattr(answer.usage, "prompt_tokens_details", None)
        return Answer(
            ids=tuple(ids), logprobs=tuple(map(float, logprobs)), cached=int(getattr(details, "cached_tokens", 0) or 0)
        )

    # -- weights ----------------------------------------------------------------------------------------------------

    async def load(self, state: ModelState) -> None:
        """Push weights; see `Host.load`."""
        file = await asyncio.to_thread(write, state, self._model.exchange / "weights.safetensors")
        await self._call("collective_rpc", {"method": "receive_file", "args": [str(file)]})
        await self._call("reset_prefix_cache", {})
        await self._mark()
        self.based = True

    async def load_adapters(self, folder: Path) -> None:
        """Push adapters; see `Host.load_adapters`."""
        before, self._adapters = self._adapters, f"spark-rl-{uuid.uuid4().hex[:12]}"
        await self._call("v1/load_lora_adapter", {"lora_name": self._adapters, "lora_path": str(folder)})
        if before:
            await self._call("v1/unload_lora_adapter", {"lora_name": before})

    async def _mark(self) -> None:
        """Tell the server a version that no other run gives it."""
        self._version = uuid.uuid4().hex
        await self._call("update_weight_version", {"new_version": self._version})

    async def _call(self, path: str, body: dict[str, object]) -> None:
        """One of vLLM's own calls."""
        import openai

        root = self._root
        try:
            await self._client.post(f"{root}/{path}", body=body, cast_to=object)
        except openai.APIStatusError as error:
            if error.status_code in UNKNOWN:
                raise PolicyFailure(
                    f"{root} has no call /{path}, so it cannot be given weights: start vLLM as docs/engines.md shows"
                ) from None
            reason = " ".join(str(error.message).split())[:300]
            raise PolicyFailure(f"{root} does not take the new weights (/{path}: {error.status_code}, {reason})") from None
        except openai.APIConnectionError:
            raise PolicyFailure(f"{root} cannot be reached: is the server up?") from None

    async def rest(self) -> bool:
        """Check that the server still has the weights that were pushed; it frees nothing. See `Host.rest`."""
        await self.wake()
        return False

    async def wake(self) -> None:
        """Check that the server has not been started again since the weights were pushed; see `Host.wake`."""
        if self._version:
            told: Any = await _answered(self._client, self._client.get(f"{self._root}/weight_info", cast_to=object))
            if told.get("weight_version") != self._version:
                raise PolicyFailure(
                    f"{self._root} has other weights than it was given: was it started again? Resume the run"
                )

    def stop(self) -> None:
        """Leave the server as it is."""


async def _answered(client: AsyncOpenAI, call: Any) -> Any:
    """The answer to a request, or a sentence; the client library has tried several times."""
    import openai

    try:
        return await call
    except openai.APIStatusError as error:
        reason = " ".join(str(error.message).split())[:300]
        raise PolicyFailure(f"{client.base_url} refuses a request ({error.status_code}: {reason})") from None
    except openai.APIConnectionError as error:
        kind = "does not answer in time" if isinstance(error, openai.APITimeoutError) else "cannot be reached"
        raise PolicyFailure(f"{client.base_url} {kind}: is the server up, and is engine.base_url right?") from None
