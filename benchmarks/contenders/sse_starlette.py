"""sse-starlette: `EventSourceResponse` of an async generator, on uvicorn with uvloop and httptools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from benchmarks.contenders import EVENTS, MEMORY, Contender, Task, own_server

CONTENDERS = (
    Contender(
        name="sse-starlette on uvicorn",
        does="normalizes",
        note="EventSourceResponse of a generator; uvicorn with uvloop and httptools; upstream by aiohttp and orjson",
        command=own_server(__name__),
        memory=MEMORY,
        requirements=("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools", "aiohttp", "orjson"),
        distributions=("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools", "aiohttp"),
    ),
)


def main() -> None:
    """Relays, and answers from memory."""
    import orjson
    import uvicorn
    from sse_starlette import EventSourceResponse, ServerSentEvent
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.routing import Route

    from benchmarks.contenders._chat import Upstream, from_memory

    task = Task.from_environment()
    texts = task.texts()
    upstream = Upstream(task.upstream)

    async def written(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[ServerSentEvent]:
        async for event in events:
            yield ServerSentEvent(orjson.dumps(event).decode(), event=event["type"])

    async def relay(request: Request) -> EventSourceResponse:
        await request.body()
        return EventSourceResponse(written(upstream.events()))

    async def answer_from_memory(request: Request) -> EventSourceResponse:
        return EventSourceResponse(written(from_memory(texts)))

    routes = [
        Route(EVENTS.path, relay, methods=["POST"]),
        Route(MEMORY.path, answer_from_memory, methods=["POST"]),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=task.port, backlog=4096, log_level="warning")


if __name__ == "__main__":
    main()
