"""`gai-fast replay`: serves a recorded answer with its timing, to any request.

`net/attempts/recording_player.py` owns the format of recordings. A file in another format is served as the body of a
response, all at once.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import click

from gai_fast.cli import ConfigFailure, FiniteRange, WholeRange, announce, cannot_listen, option
from gai_fast.cli.local_server import LocalServer, cut, read_body, run_until_signal
from gai_fast.model.limits import SHARED
from gai_fast.net.attempts.recording_player import Recording, read_recording

if TYPE_CHECKING:
    from aiohttp import web

_FRAMING: Final = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})
"""Recorded headers that are left out: they belong to the recorded connection."""
_BODILESS: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
"""Statuses whose responses have no body (RFC 9110 §6.4.1); responses to HEAD have none, too."""


def load(path: Path) -> Recording:
    """Reads a recording, or makes one from a bare body.

    Raises:
        ConfigFailure: The file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ConfigFailure(f"cannot read {path}: {problem.strerror}") from None
    try:
        return read_recording(data)
    except ValueError as problem:
        first = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if data.startswith(b'{"format":') or not first:
            raise ConfigFailure(f"{path}: {problem}") from None
        # The first byte distinguishes JSON from SSE frames; clients' parsers use it, too.
        kind = "text/event-stream" if first not in b"{[" else "application/json"
        return Recording([(0.0, data)], headers={"content-type": kind})


class RecordingServer:
    """Answers every request on 127.0.0.1 with one recording.

    Args:
        recording: The answer.
        port: The port; 0 chooses a free one.
        speed: The factor by which it is faster than recorded; 0: without any pause.
        split: Bytes of each separate write; 0: as recorded.
    """

    def __init__(self, recording: Recording, *, port: int = 0, speed: float = 1.0, split: int = 0) -> None:
        self._recording = recording
        self._speed = speed
        self._split = split
        from aiohttp import web

        app = web.Application(client_max_size=SHARED.whole_answer)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._server = LocalServer(app, port=port)

    @property
    def url(self) -> str:
        """The base URL. Only valid after the server has started."""
        return self._server.url

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        from aiohttp import HttpVersion11, web

        await read_body(http)
        recording, loop = self._recording, asyncio.get_running_loop()
        began = loop.time()
        headers = {name: text for name, text in recording.headers.items() if name.lower() not in _FRAMING}
        response = web.StreamResponse(status=recording.status, headers=headers)
        response.force_close()
        if http.version >= HttpVersion11 and recording.chunks:
            response.enable_chunked_encoding()
        await response.prepare(http)
        if http.method == "HEAD" or recording.status in _BODILESS:
            return response
        for at, data in recording.chunks:
            if self._speed:
                await asyncio.sleep(began + at / self._speed - loop.time())
            size = self._split or len(data)
            for begin in range(0, len(data), size or 1):
                await response.write(data[begin : begin + size])
                if self._split:
                    await asyncio.sleep(0)
        if recording.broke:
            http.writer.send_headers()
            cut(http)
        return response


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@option("--port", type=WholeRange(0, 65535), default=9000, help="Port on 127.0.0.1; 0 chooses a free one.")
@option("--speed", type=FiniteRange(0), default=1.0, help="Times faster than recorded; 0: without any pause.")
@option("--split", type=WholeRange(0), default=0, help="Bytes of each separate write; 0: as recorded.")
def command(file: Path, port: int, speed: float, split: int) -> None:
    """Serve a recording with its timing.

    FILE is a recording from serve --record, or the bare body of an answer. Point an upstream's base_url at the URL that
    is printed: every request gets the recording.
    """
    server = RecordingServer(load(file), port=port, speed=speed, split=split)
    try:
        asyncio.run(run_until_signal(server, lambda url: announce(f"replaying {click.format_filename(file)} on {url}")))
    except OSError as problem:
        raise cannot_listen(f"127.0.0.1:{port}", problem) from None
