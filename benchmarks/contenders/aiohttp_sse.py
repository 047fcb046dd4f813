"""aiohttp-sse: `sse_response` of aiohttp, one `send` per event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from benchmarks.contenders import EVENTS, MEMORY, Contender, Task, own_server

CONTENDERS = (
    Contender(
        name="aiohttp-sse",
        does="normalizes",
        note="aiohttp-sse on aiohttp and uvloop, send() per event; upstream by aiohttp and orjson",
        command=own_server(__name__),
        memory=MEMORY,
        requirements=("aiohttp-sse", "aiohttp", "orjson", "uvloop"),
        distributions=("aiohttp-sse", "aiohttp", "orjson", "uvloop"),
    ),
)


def main() -> None:
    """Relays, and answers from memory."""
    import orjson
    import uvloop
    from aiohttp import web
    from aiohttp_sse import EventSourceResponse

    from benchmarks.contenders._chat import Upstream, from_memory

    task = Task.from_environment()
    texts = task.texts()
    upstream = Upstream(task.upstream)

    async def stream(request: web.Request, events: AsyncIterator[dict[str, Any]]) -> web.StreamResponse:
        await request.read()
        response = EventSourceResponse(allow_all_methods=True)
        await response.prepare(request)
        async with response:
            async for event in events:
                await response.send(orjson.dumps(event).decode(), event=event["type"])
        return response

    async def relay(request: web.Request) -> web.StreamResponse:
        return await stream(request, upstream.events())

    async def answer_from_memory(request: web.Request) -> web.StreamResponse:
        return await stream(request, from_memory(texts))

    app = web.Application()
    app.router.add_post(EVENTS.path, relay)
    app.router.add_post(MEMORY.path, answer_from_memory)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=task.port, backlog=4096, access_log=None, print=None)


if __name__ == "__main__":
    main()
