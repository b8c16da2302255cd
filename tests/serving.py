"""A server that speaks the OpenAI chat protocol on a real socket, and fails as planned.

It answers with what a function makes of the conversation. Before that the plan may have a request fail in one of `FAILURES`
ways. It writes down what came, so that tests can count.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Growth, World
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Node, Sampling, Task, TreeShape

Body = dict[str, Any]

FAILURES = ("limit", "error", "cut", "garbage", "slow")
"""429 with Retry-After, 500, a connection closed in the middle of an answer, a body that is no JSON, and no answer until the
client has given up and asked again."""

PATIENCE = 60.0
"""Seconds after which a slow answer comes all the same."""


@dataclass
class Served:
    """What came and what is to happen."""

    reply: Callable[[Body], str | tuple[int, str]]
    """From a request to the answer's text, or a status code and a message."""
    plan: Callable[[str, int], str | None] = lambda digest, times: None
    """From a request's hash and how often it came before to the failure it meets."""
    arrival: Callable[[int], None] = lambda number: None
    """Told the number of a request (from 1) before it is answered."""
    finish: str = "stop"
    bodies: list[Body] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Failures that were served."""
    headers: list[dict[str, str]] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)
    """How often each request came, by its hash."""
    most: int = 0
    """Most requests that were under way at once."""
    url: str = ""
    now: int = 0
    over: bool = False
    """The test has ended."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError):  # who asked was killed
            super().handle()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        served = self.served
        with served.lock:
            before = served.times.get(digest, 0)
            served.times[digest] = before + 1
            served.bodies.append(body)
            served.headers.append({name.lower(): value for name, value in self.headers.items()})
            served.now += 1
            served.most = max(served.most, served.now)
            number = len(served.bodies)
        try:
            served.arrival(number)
            failure = served.plan(digest, before)
            if failure is not None:
                with served.lock:
                    served.failed.append(failure)
            # The requester may have gone: then there is nobody to tell.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._answer(body, digest, failure)
        finally:
            with served.lock:
                served.now -= 1

    def _answer(self, body: Body, digest: str, failure: str | None) -> None:
        served = self.served
        if failure == "limit":
            return self._send(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "1"})
        if failure == "error":
            return self._send(500, b'{"error": {"message": "something broke"}}')
        if failure == "garbage":
            return self._send(200, b'{"choices": [{"message": {"cont')
        if failure == "slow":
            seen, end = served.times[digest], time.monotonic() + PATIENCE
            while served.times[digest] == seen and time.monotonic() < end and not served.over:
                time.sleep(0.02)
        said = served.reply(body)
        if isinstance(said, tuple):
            return self._send(said[0], json.dumps({"error": {"message": said[1]}}).encode())
        words = sum(len(message["content"].split()) for message in body["messages"])
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "served-" + body["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": served.finish}],
            "usage": {
                "prompt_tokens": words,
                "completion_tokens": len(said.split()),
                "total_tokens": words + len(said.split()),
                "prompt_tokens_details": {"cached_tokens": 1},
            },
        }
        data = json.dumps(answer).encode()
        if failure == "cut":
            self._send(200, data[: len(data) // 2], {"Content-Length": str(len(data))})
            self.close_connection = True
            return None
        return self._send(200, data)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(reply: Callable[[Body], str | tuple[int, str]], **settings: Any) -> Iterator[Served]:
    """A server on a port of this machine until the block ends."""
    served = Served(reply, **settings)
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        served.over = True
        server.shutdown()
        server.server_close()
        thread.join()


def as_the_expert(
    world: World, tasks: Sequence[Task], prompt: Prompt, say: Callable[[Node], str] = lambda node: node.text
) -> Callable[[Body], str]:
    """Replies that play as the world's expert does, found by the prompts it would have read."""
    tagged = replace(prompt, instructions="full")  # experts know no other form
    growth = Growth(TreeShape(budget=1, roots=1, horizon=30), Chains(), tagged, Sampling())
    forest = asyncio.run(grow_forest(tasks, world, world.expert("sparse"), growth, seed=0))  # type: ignore[attr-defined]
    lines = {
        json.dumps(prompt.render(tree, node.parent, None).messages): say(node) for tree in forest for node in tree.nodes
    }
    return lambda body: lines[json.dumps(body["messages"])]


DEFECTS = ("prose", "cut", "short", "changed", "silent")
"""What a teacher does wrong: no JSON, half of it, a step too few, another action, a reason that is empty."""


def teach(body: Body, defect: str | None = None) -> str:
    """A teacher's answer to a question about reasons: the form it ends with, filled in, with a defect."""
    steps = json.loads(body["messages"][0]["content"].splitlines()[-1])["steps"]
    for number, step in enumerate(steps):
        step |= {"mode": "explore" if number == 0 else "think", "reason": f"It is time to {step['action']}."}
    if defect == "short":
        del steps[-1]
    elif defect == "changed":
        steps[-1]["action"] = "dance"
    elif defect == "silent":
        steps[-1]["reason"] = " "
    text = json.dumps({"steps": steps})
    return {"prose": "These steps are all good.", "cut": text[: len(text) // 2]}.get(defect or "", text)
