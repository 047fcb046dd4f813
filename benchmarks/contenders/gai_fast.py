"""gai-fast: as a server, native and pure, normalizing and passing through; as a library, inside an aiohttp handler."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.contenders import CHAT, MEMORY, Contender, Place, Task, own_server

CONFIG = """\
[server]
demo = false

[[upstream]]
name = "bench"
provider = "openai"
base_url = "{upstream}/v1"
max_connections = 10000

[[model]]
name = "bench"
upstream = "bench"
"""


def _serve(place: Place) -> Sequence[str]:
    if not place.upstream:
        return own_server(__name__)(place)
    config = place.folder / "gai-fast.toml"
    config.write_text(CONFIG.format(upstream=place.upstream))
    return str(place.python), "-m", "gai_fast", "serve", "-c", str(config), "--port", str(place.port)


_contender = partial(
    Contender,
    command=_serve,
    version=lambda place: (str(place.python), "-m", "gai_fast", "version"),
)
_MEMORY = "from memory: the library's SSEEncoder in an aiohttp handler, one write per answer"

CONTENDERS = (
    _contender(
        name="gai-fast",
        does="normalizes",
        note=f"gai-fast serve, POST /api/v1/stream; {_MEMORY}",
        memory=MEMORY,
        environment={"GAI_FAST_REQUIRE_EXTENSIONS": "1"},
        quick=True,
    ),
    _contender(
        name="gai-fast, passthrough",
        does="passes through",
        note="gai-fast serve, POST /v1/chat/completions: every chunk checked, bytes kept",
        route=CHAT,
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
