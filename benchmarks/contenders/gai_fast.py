"""gai-fast: as a server, native and pure, normalizing and passing through; as a library, inside an aiohttp handler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from benchmarks.contenders import (
    CHAT,
    EVENTS,
    MEMORY,
    MESSAGES,
    QUERY,
    RESPONSES,
    Contender,
    Place,
    Route,
    Task,
    own_server,
)

CONFIG = """\
[server]
demo = false

[limits]
streams_per_caller = 10000

[[upstream]]
name = "bench"
provider = "openai"
base_url = "{upstream}/v1"
max_connections = 10000

[[model]]
name = "bench"
upstream = "bench"

[[upstream]]
name = "bench-responses"
provider = "openai:responses"
base_url = "{upstream}/v1"
max_connections = 10000

[[model]]
name = "bench-responses"
upstream = "bench-responses"

[[upstream]]
name = "bench-messages"
provider = "anthropic"
base_url = "{upstream}"
max_connections = 10000

[[model]]
name = "bench-messages"
upstream = "bench-messages"
"""


def configured(place: Place, name: str = "gai-fast.toml") -> str:
    """Writes the configuration into the place's folder; returns its path."""
    config = place.folder / name
    config.write_text(CONFIG.format(upstream=place.upstream))
    return str(config)


def _serve(place: Place) -> Sequence[str]:
    if not place.upstream:
        return own_server(__name__)(place)
    return str(place.python), "-m", "gai_fast", "serve", "-c", configured(place), "--port", str(place.port)


_contender = partial(
    Contender,
    command=_serve,
    version=lambda place: (str(place.python), "-m", "gai_fast", "version"),
)
_native = partial(replace, EVENTS)


def _format(name: str, key: str, end: str) -> Route:
    """Returns a format that has no route of its own."""
    return _native(path=f"{EVENTS.path}?format={name}", key=key, end=end)


FORMATS = {
    "responses": replace(RESPONSES, body={**RESPONSES.body, "model": "bench"}),
    "anthropic": replace(MESSAGES, body={**MESSAGES.body, "model": "bench"}),
    "completions": Route("/v1/completions", {"model": "bench", "prompt": QUERY, "stream": True}, "text", "[DONE]"),
    "simple": _format("simple", "content", "[DONE]"),
    "vercel": _format("vercel", "delta", "[DONE]"),
    "agui": _format("agui", "delta", '"type":"RUN_FINISHED"'),
    "raw": _format("raw", "content", "[DONE]"),
}
"""The formats that chat answers are translated into, besides `gai`; `raw` copies the upstream's frames."""
_MEMORY = "from memory: the library's SSEEncoder in an aiohttp handler, one write per answer"

CONTENDERS = (
    _contender(
        name="gai-fast",
        does="normalizes",
        note=f"gai-fast serve, POST /api/v1/stream; {_MEMORY}",
        wires={
            "formats": EVENTS,
            "responses": _native(body={"model": "bench-responses", "query": QUERY}),
            "messages": _native(body={"model": "bench-messages", "query": QUERY}),
        },
        memory=MEMORY,
        environment={"GAI_FAST_REQUIRE_EXTENSIONS": "1"},
        quick=True,
    ),
    _contender(
        name="gai-fast, passthrough",
        does="passes through",
        note="gai-fast serve, POST /v1/chat/completions, /v1/responses, /v1/messages: every chunk checked, bytes kept",
        route=CHAT,
        wires={"responses": RESPONSES, "messages": MESSAGES},
        environment={"GAI_FAST_REQUIRE_EXTENSIONS": "1"},
        quick=True,
    ),
    _contender(
        name="gai-fast, pure Python",
        does="normalizes",
        note="the same with GAI_FAST_NO_EXTENSIONS=1",
        memory=MEMORY,
        environment={"GAI_FAST_NO_EXTENSIONS": "1"},
        quick=True,
    ),
    _contender(
        name="gai-fast, WebSocket",
        does="normalizes",
        note="gai-fast serve, GET /ws/stream: one request after the other over each socket",
        route=None,
        wires={"formats": _native(path="/ws/stream", is_socket=True)},
        environment={"GAI_FAST_REQUIRE_EXTENSIONS": "1"},
    ),
    *(
        _contender(
            name=f"gai-fast, {name}",
            does="copies bytes" if name == "raw" else "normalizes",
            note=f"gai-fast serve, POST {route.path}",
            route=None,
            wires={"formats": route},
            environment={"GAI_FAST_REQUIRE_EXTENSIONS": "1"},
        )
        for name, route in FORMATS.items()
    ),
)


def main() -> None:
    """Answers from memory."""
    import uvloop
    from aiohttp import web

    from gai_fast import SSEEncoder

    task = Task.from_environment()
    texts = task.texts()
    finish = {"type": "finish", "finish_reason": "stop"}
    done = {"type": "done", "finished": True}

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        encoder = SSEEncoder()
        for text in texts:
            encoder.text_delta(text)
        encoder.event(finish)
        encoder.event(done)
        await response.write(encoder.take())
        return response

    app = web.Application()
    app.router.add_post(MEMORY.path, answer)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=task.port, backlog=4096, access_log=None, print=None)


if __name__ == "__main__":
    main()
