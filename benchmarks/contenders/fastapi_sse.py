"""FastAPI's own server-sent events: a path operation that yields `ServerSentEvent`, on uvicorn."""

from __future__ import annotations

from benchmarks.contenders import EVENTS, MEMORY, Contender, Task, own_server

CONTENDERS = (
    Contender(
        name="FastAPI's SSE on uvicorn",
        does="normalizes",
        note="fastapi.sse; uvicorn with uvloop and httptools; upstream by aiohttp and orjson",
        command=own_server(__name__),
        memory=MEMORY,
        requirements=("fastapi", "uvicorn", "uvloop", "httptools", "aiohttp", "orjson"),
        distributions=("fastapi", "pydantic", "uvicorn", "uvloop", "httptools", "aiohttp"),
    ),
)


def main() -> None:
    """Relays, and answers from memory."""
    from collections.abc import AsyncIterable

    import uvicorn
    from fastapi import FastAPI
    from fastapi.sse import EventSourceResponse, ServerSentEvent

    from benchmarks.contenders._chat import Upstream, from_memory

    task = Task.from_environment()
    texts = task.texts()
    upstream = Upstream(task.upstream)
    app = FastAPI()

    async def relay() -> AsyncIterable[ServerSentEvent]:
        async for event in upstream.events():
            yield ServerSentEvent(data=event, event=event["type"])

    async def answer_from_memory() -> AsyncIterable[ServerSentEvent]:
        async for event in from_memory(texts):
            yield ServerSentEvent(data=event, event=event["type"])

    # The names in the annotations are local to this function, where FastAPI does not look for them.
    for operation in (relay, answer_from_memory):
        operation.__annotations__["return"] = AsyncIterable[ServerSentEvent]
    app.post(EVENTS.path, response_class=EventSourceResponse)(relay)
    app.post(MEMORY.path, response_class=EventSourceResponse)(answer_from_memory)
    uvicorn.run(app, host="127.0.0.1", port=task.port, backlog=4096, log_level="warning")


if __name__ == "__main__":
    main()
