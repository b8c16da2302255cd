"""A server on a real socket that takes and gives token ids, with vLLM's calls for new weights, around the local engine.

It can leave out what a trainer needs, tell other log-probabilities, or be started again with the weights that it had first.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from spark_rl.engines.local.engine import LocalEngine
from spark_rl.models import adapters
from spark_rl.types import Observation, Request, Task

TASK, NOWHERE = Task("none", "none/1", "nothing"), Observation("")


@dataclass
class TokenServer:
    """The server, and what came."""

    model: Any
    tokenizer: Any
    calls: list[str] = field(default_factory=list)
    """Paths of the calls, in order."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests for tokens."""
    without: frozenset[str] = frozenset()
    """Names that answers leave out, and paths that the server does not have."""
    temperature: float | None = None
    """The temperature of the log-probabilities that it tells, where that is not the request's."""
    models: tuple[str, ...] = ("own",)
    version: str = "default"
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.first = copy.deepcopy(self.model.state_dict())
        self.engine = LocalEngine(self.model, self.tokenizer)

    def restart(self) -> None:
        """Be as at first."""
        self.version = "default"
        self.model.load_state_dict(self.first)
        self.engine.forget()

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        asked = Request(
            TASK, (), NOWHERE, seeds=(body["seed"],), prompt=tuple(body["prompt"]),
            max_tokens=body["max_tokens"], temperature=self.temperature or body["temperature"],
        )  # fmt: skip
        with self.lock:
            self.asked.append(body)
            ((completion,),) = asyncio.run(self.engine.sample([asked]))
        ids, logprobs = list(completion.ids or ()), list(completion.logprobs or ())
        if not body["stop_token_ids"]:  # the engine's own end of turn is no end
            ids, logprobs = ids[: body["max_tokens"]], logprobs[: body["max_tokens"]]
        choice = {
            "index": 0,
            "text": "",
            "token_ids": ids,
            "logprobs": {"token_logprobs": logprobs},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": len(asked.prompt or ()), "completion_tokens": len(ids), "total_tokens": 0}
        choice = {name: value for name, value in choice.items() if name not in self.without}
        return {"id": "1", "object": "text_completion", "created": 0, "model": "own", "choices": [choice], "usage": usage}

    def call(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and answer of a call."""
        self.calls.append(path)
        if path in self.without:
            return 404, {"error": {"message": "not found"}}
        if path == "/v1/models":
            return 200, {
                "object": "list",
                "data": [{"id": name, "object": "model", "max_model_len": 1024} for name in self.models],
            }
        if path == "/v1/completions":
            return 200, self.complete(body)
        if path == "/weight_info":
            return 200, {"weight_version": self.version}
        if path == "/update_weight_version":
            self.version = body["new_version"]
        elif path == "/collective_rpc":
            state = load_file(body["args"][0])
            own = {name.replace(".base_layer.", "."): name for name in self.model.state_dict()}
            if strange := state.keys() - own.keys():
                return 500, {"error": {"message": f"no weight {min(strange)}"}}
            self.model.load_state_dict({own[name]: numbers for name, numbers in state.items()}, strict=False)
            self.engine.forget()
        elif path == "/v1/load_lora_adapter":
            folder = Path(body["lora_path"])
            (adapters.restore if adapters.present(self.model) else adapters.load)(self.model, folder)
            self.engine.forget()
        return 200, {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_: TokenServer

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

    def _answer(self, body: dict[str, Any]) -> None:
        status, answer = self.server_.call(self.path, body)
        content = json.dumps(answer).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextlib.contextmanager
def token_server(model: Any, tokenizer: Any, **settings: Any) -> Iterator[TokenServer]:
    """A server until the block ends."""
    served = TokenServer(copy.deepcopy(model), tokenizer, **settings)
    handler = type("Handler", (_Handler,), {"server_": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
