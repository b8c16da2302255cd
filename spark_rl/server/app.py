"""The live page: the report's page, fed by a server that reads run directories and pushes what changed.

Invariants
----------
* It only reads. Whoever can open the page can see the runs it was given, and can do nothing.
* It listens on this machine unless told otherwise, and answers only to the names it was given, so that another site open
  in the same browser cannot read it by pointing a name of its own here.

`/api/runs`, `/api/runs/KEY` and `/api/runs/KEY/forests/ITERATION` answer the values of `web/src/contract.ts`; `/events`
sends `changed` with a run's key whenever one of its files has changed, looked at once a second: that works on any file
system.
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
"""Seconds between looks at the files."""
HEADERS = {
    "Content-Security-Policy": POLICY.format(script="'self'", style="'self'", connect="'self'"),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def application(shelf: Shelf, hosts: Sequence[str], every: float = EVERY) -> Starlette:
    """The server's application.

    Args:
        shelf: the runs.
        hosts: names under which it may be asked.
        every: seconds between looks at the files.
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
        found = await run_in_threadpool(shelf.forest, _key(shelf, request), int(request.path_params["iteration"]))
        if isinstance(found, str):
            raise HTTPException(404, found)
        return _answer(found, "application/json", {"Content-Encoding": "gzip"})

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
    """An event for each run that has changed since this page was opened, or has appeared."""
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
