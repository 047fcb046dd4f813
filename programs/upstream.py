"""The scripted upstream: a server that speaks every dialect, and keeps the requests that it got."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial
from typing import Any, Final

from aiohttp import web

from programs.dialects import DIALECTS
from programs.script import answer_to

BETWEEN: Final = 0.002
"""Seconds between two frames, so that they reach the gateway one by one."""
LARGEST_REQUEST: Final = 16 << 20


class Upstream:
    """A running upstream; to be entered."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """The dialects and the bodies of the requests, in order."""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Upstream:
        app = web.Application(client_max_size=LARGEST_REQUEST)
        for name, dialect in DIALECTS.items():
            app.router.add_post(dialect.path, partial(self._answer, name))
        app.router.add_get("/v1/models", _models)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *problem: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _answer(self, name: str, http: web.Request) -> web.StreamResponse:
        body = await http.json()
        self.requests.append((name, body))
        dialect = DIALECTS[name]
        answer = answer_to(dialect.read(body))
        number = len(self.requests)
        if not body.get("stream"):
            return web.json_response(dialect.whole(answer, body, number))
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(http)
        with suppress(ConnectionError):  # some clients leave at the end mark
            for frame in dialect.frames(answer, body, number):
                await response.write(frame)
                await asyncio.sleep(BETWEEN)
            await response.write_eof()
        return response


async def _models(_: web.Request) -> web.Response:
    model = {"id": "fast", "object": "model", "created": 1, "owned_by": "script"}
    return web.Response(text=json.dumps({"object": "list", "data": [model]}), content_type="application/json")
