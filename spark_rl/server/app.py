"""The live page: the report's page, served with data from run directories and updated when they change.

Invariants
----------
* The server only reads. Everyone who can open the page can see the served runs, and can change nothing.
* By default the server listens only on this machine. It answers only requests for its configured host names, so that another
  site open in the same browser cannot read the runs through a host name that points to this machine (DNS rebinding).

`/api/runs`, `/api/runs/KEY` and `/api/runs/KEY/forests/ITERATION` answer with the values of `web/src/contract.ts`. `/events`
sends `changed` with a run's key whenever a file of the run has changed. The server checks the files once a second, which
works on any file system.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spark_rl.report.html import POLICY, asset, fill, metrics_element
from spark_rl.server.shelf import Shelf

__all__ = ["application"]

EVERY = 1.0
"""Seconds between checks of the files."""
HEADERS = {
    "Content-Security-Policy": POLICY.format(script="'self'", style="'self'", connect="'self'"),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def application(shelf: Shelf, hosts: Sequence[str], every: float = EVERY) -> Starlette:
    """The server's application.

    Args:
        shelf: the runs to serve.
        hosts: host names that the server answers to.
        every: seconds between checks of the files.
    """

    async def page(request: Request) -> Response:
        html = fill(
            csp=HEADERS["Content-Security-Policy"],
            style='<link rel="stylesheet" href="page.css">',
            data=metrics_element(),
            script='<script src="page.js"></script>',
        )
        return _answer(html.encode(), "text/html")

    async def script(request: Request) -> Response:
        return _answer(asset("page.js").encode(), "text/javascript")

    async def style(request: Request) -> Response:
        return _answer(asset("page.css").encode(), "text/css")

    async def runs(request: Request) -> Response:
        await run_in_threadpool(shelf.look)
        return _json([await run_in_threadpool(shelf.run, key) for key in shelf.keys])

    async def run(request: Request) -> Response:
        return _json(await run_in_threadpool(shelf.run, _key(shelf, request)))

    async def forest(request: Request) -> Response:
        answer = await run_in_threadpool(shelf.forest, _key(shelf, request), int(request.path_params["iteration"]))
        if isinstance(answer, str):
            raise HTTPException(404, answer)
        return _answer(answer, "application/json", {"Content-Encoding": "gzip"})

    async def events(request: Request) -> Response:
        return EventSourceResponse(_changes(shelf, every))

    routes = [
        Route("/", page),
        Route("/page.js", script),
        Route("/page.css", style),
        Route("/api/runs", runs),
        Route("/api/runs/{key}", run),
        Route("/api/runs/{key}/forests/{iteration:int}", forest),
        Route("/events", events),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))])


async def _changes(shelf: Shelf, every: float) -> AsyncGenerator[ServerSentEvent]:
    """An event for each run that has changed or appeared since this page was opened."""
    seen = {key: shelf.stamp(key) for key in shelf.keys}
    while True:
        await asyncio.sleep(every)
        await run_in_threadpool(shelf.look)
        now = {key: await run_in_threadpool(shelf.stamp, key) for key in shelf.keys}
        for key, stamp in now.items():
            if stamp != seen.get(key):
                yield ServerSentEvent(key, event="changed")
        seen = now


def _key(shelf: Shelf, request: Request) -> str:
    if (key := request.path_params["key"]) not in shelf.keys:
        raise HTTPException(404, f"there is no run {key}")
    return key


def _json(value: object) -> Response:
    return _answer(json.dumps(value, allow_nan=False).encode(), "application/json")


def _answer(content: bytes, kind: str, more: dict[str, str] | None = None) -> Response:
    return Response(content, media_type=kind, headers={**HEADERS, **(more or {})})
