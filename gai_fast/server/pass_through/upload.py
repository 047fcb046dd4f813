"""Sends the body of a request to its upstream while it arrives from the client.

Owns the order of reading and writing, and back pressure. `BodySource` has the limits of what a client sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from gai_fast.kernels import frame_chunk
from gai_fast.model.errors import Error
from gai_fast.net.upstream.connection import Exchange, Upload
from gai_fast.server.http.request import BodySource
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")
_LAST_CHUNK: Final = b"0\r\n\r\n"


class BodyUpload(Upload):
    """The rest of one body.

    Args:
        source: Reads the body from the client.
        failed: Called if the body cannot be read. Not called if the client has disconnected.
        check: Called with bytes before they are sent, and with none before the last are; raises an `Error` to refuse
            them. None if all are sent.
    """

    def __init__(
        self,
        source: BodySource,
        failed: Callable[[Error], object],
        check: Callable[[bytes], object] | None = None,
    ) -> None:
        self._source = source
        self._failed = failed
        self._check = check
        self._is_open = asyncio.Event()
        self._has_room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def length(self) -> int:
        """The length of the whole body; negative if the client has not stated it."""
        return -1 if self._source.length is None else self._source.length

    def framed(self, data: bytes) -> bytes:
        """Returns bytes of the body as they are written."""
        return data if self._source.length is not None or not data else frame_chunk(b"", [data], b"")

    def start(self, exchange: Exchange) -> None:
        """Starts to send, once the exchange has a connection."""
        self._task = asyncio.get_running_loop().create_task(self._run(exchange))
        self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Stops; idempotent."""
        if self._task is not None:
            self._task.cancel()

    def begin(self) -> None:
        """Works as `Upload.begin`."""
        self._is_open.set()

    def resume(self) -> None:
        """Works as `Upload.resume`."""
        self._has_room.set()

    async def _run(self, exchange: Exchange) -> None:
        await self._is_open.wait()
        source, held = self._source, b""
        with contextlib.suppress(ConnectionError):  # the client has disconnected: its transport says so too
            while data := await source.read():
                if self._check is not None:
                    self._check(data)
                    data, held = held, data  # holds one piece back: the last is sent after the check at the end
                await self._write(exchange, data)
            if self._check is not None:
                self._check(b"")
                await self._write(exchange, held)
            await self._connected(exchange)
            if source.length is None:
                exchange.write(_LAST_CHUNK)
            exchange.end_body()

    async def _connected(self, exchange: Exchange) -> None:
        """Waits while a connection that turned out dead is replaced: the exchange would drop what is written."""
        if not exchange.sent:
            self._is_open.clear()
            await self._is_open.wait()

    async def _write(self, exchange: Exchange, data: bytes) -> None:
        if data:
            await self._connected(exchange)
            self._has_room.clear()
            exchange.write(self.framed(data))
            if exchange.unsent > LIMITS.unsent_upload:
                await self._has_room.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        problem = None if task.cancelled() else task.exception()
        if isinstance(problem, Error):
            self._failed(problem)
        elif problem is not None:
            _log.error("the body of a request could not be passed on: a bug", exc_info=problem)
            self._failed(Error("internal", "The server failed to pass the body on"))
