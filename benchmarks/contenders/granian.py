"""granian, the server in Rust, with Starlette's `StreamingResponse`: frames by hand, one `yield` each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from benchmarks.contenders import EVENTS, MEMORY, Contender, Place, Task


def _command(place: Place) -> Sequence[str]:
    options = ("--interface", "asgi", "--host", "127.0.0.1", "--port", str(place.port), "--workers", "1", "--no-ws")
    tuned = ("--loop", "uvloop", "--backlog", "4096", "--backpressure", "20000", "--log-level", "warning", "--factory")
    return str(place.python), "-P", "-m", "granian", *options, *tuned, f"{__name__}:app"


CONTENDERS = (
    Contender(
        name="Starlette on granian",
        does="normalizes",
        note="StreamingResponse of frames by hand, asgi, uvloop; upstream by aiohttp and orjson",
        command=_command,
        memory=MEMORY,
        requirements=("granian[uvloop]", "starlette", "uvloop", "aiohttp", "orjson"),
        distributions=("granian", "starlette", "uvloop", "aiohttp", "orjson"),
    ),
)


def app() -> Any:
    """Yields the ASGI application, made in the worker."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    from benchmarks.contenders._chat import Upstream, frame, from_memory

    task = Task.from_environment()
    texts = task.texts()
    upstream = Upstream(task.upstream)

    async def frames(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
        async for event in events:
            yield frame(event)

    async def relay(request: Request) -> StreamingResponse:
        await request.body()
        return StreamingResponse(frames(upstream.events()), media_type="text/event-stream")

    async def answer_from_memory(request: Request) -> StreamingResponse:
        return StreamingResponse(frames(from_memory(texts)), media_type="text/event-stream")

    routes = [
        Route(EVENTS.path, relay, methods=["POST"]),
        Route(MEMORY.path, answer_from_memory, methods=["POST"]),
    ]
    return Starlette(routes=routes)
