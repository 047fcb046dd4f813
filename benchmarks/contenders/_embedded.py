"""Code that the gateways in process share: an aiohttp handler that sends each text of an answer as an event.

Runs in their environments: aiohttp, orjson and uvloop are installed there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import uvloop
from aiohttp import web

from benchmarks.contenders import EVENTS, Task
from benchmarks.contenders._chat import ChatReader, delta, ending, frame

Gateway = TypeVar("Gateway")


def serve(gateway: AbstractAsyncContextManager[Gateway], ask: Callable[[Gateway], AsyncIterator[str]]) -> None:
    """Answers `EVENTS` until it is stopped.

    Args:
        gateway: Opened on the server's loop.
        ask: Asks for one answer; yields the texts of its deltas.
    """

    async def relay(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        seq = 0
        async for text in ask(request.app[key]):
            seq += 1
            await response.write(frame(delta(seq, text)))
        end = ChatReader()
        end.finish_reason, end.is_done = "stop", True
        await response.write(b"".join(map(frame, ending(seq + 1, end))))
        return response

    async def opened(app: web.Application) -> AsyncIterator[None]:
        async with gateway as app[key]:
            yield

    key = web.AppKey[Any]("gateway")
    app = web.Application()
    app.cleanup_ctx.append(opened)
    app.router.add_post(EVENTS.path, relay)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=Task.from_environment().port, backlog=4096, access_log=None, print=None)
