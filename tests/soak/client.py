"""Connections of the soak's clients: HTTP/1.1 by hand, so that a cut may fall anywhere and a false end is seen."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from tests.wire import reset

PATIENCE: Final = 60.0
"""Seconds without a byte, after which a response counts as endless. Keep-alives come far more often."""


NARROW: Final = 4096
"""Bytes that the system keeps for a client that stops reading. One that reads slowly has the usual buffer: a window
below one segment, 64 KiB on loopback, counts as shut, and TCP_USER_TIMEOUT ends the connection though it is read."""


class CutError(Exception):
    """The server has closed the connection within a response."""


class SilenceError(Exception):
    """Nothing came for `PATIENCE`."""


class Reply:
    """A response, whose head has been read.

    Attributes:
        status: The HTTP status.
        headers: By lower-case names.
        ended: The body is complete by HTTP's rules.
        received: Bytes of the body's transfer that were read, framing included.
    """

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> None:
        self._reader = reader
        self.status = status
        self.headers = headers
        self.received = 0
        self._raw = b""  # the beginning of a chunk's first line
        self._is_last = False
        self._is_chunked = headers.get("transfer-encoding") == "chunked"
        self._left = 0 if self._is_chunked or status == 204 else int(headers["content-length"])
        self.ended = not self._is_chunked and not self._left

    async def read(self, limit: int = 65536) -> bytes:
        """Returns the next bytes of the body, maybe none; look at `ended` then.

        Raises:
            CutError: The server has closed.
            SilenceError: Nothing comes.
        """
        data = await _read(self._reader, limit)
        self.received += len(data)
        if not self._is_chunked:
            self._left -= len(data)
            self.ended = not self._left
            return data
        return self._unchunked(self._raw + data)

    def _unchunked(self, raw: bytes) -> bytes:
        """Returns the data of chunks, of an unfinished one as far as it has come."""
        parts = []
        while raw and not self.ended:
            if not self._left:
                line, found, rest = raw.partition(b"\r\n")
                if not found:
                    break
                raw, size = rest, int(line, 16)
                self._left, self._is_last = size + 2, not size
            part = raw[: self._left]
            raw = raw[len(part) :]
            parts.append(part[: max(0, self._left - 2)])
            self._left -= len(part)
            self.ended = self._is_last and not self._left
        self._raw = raw
        return b"".join(parts)

    async def rest(self) -> bytes:
        """Returns the rest of the body.

        Raises:
            CutError: The server has closed.
            SilenceError: Nothing comes.
        """
        parts = []
        while not self.ended:
            parts.append(await self.read())  # what ends the loop is set by reading
        return b"".join(parts)


class Connection:
    """One connection to the gateway."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, *, is_narrow: bool = False) -> Connection:
        """Connects.

        Args:
            host: `address:port`.
            is_narrow: The system keeps few bytes for it.

        Raises:
            CutError: The server has refused.
        """
        address, _, port = host.partition(":")
        handle = socket.socket()
        handle.setblocking(False)
        if is_narrow:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        try:
            await asyncio.get_running_loop().sock_connect(handle, (address, int(port)))
        except OSError as error:
            handle.close()
            raise CutError(f"connect: {error}") from None
        reader, writer = await asyncio.open_connection(sock=handle, limit=8192 if is_narrow else 65536)
        return cls(host, reader, writer)

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Sends a request, and reads the head of its response.

        Raises:
            CutError: The server has closed.
            SilenceError: Nothing comes.
        """
        data = b"" if body is None else json.dumps(body).encode()
        lines = {"host": self._host, **(headers or {})}
        if body is not None:
            lines |= {"content-type": "application/json", "content-length": str(len(data))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        try:
            async with asyncio.timeout(PATIENCE):
                result = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        except TimeoutError:
            raise SilenceError("no head") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            raise CutError(f"no head: {error!r}") from None
        first, *fields = result.removesuffix("\r\n\r\n").split("\r\n")
        pairs = (line.partition(": ") for line in fields)
        return Reply(self._reader, int(first.split(" ")[1]), {name.lower(): value for name, _, value in pairs})

    def pause(self) -> None:
        """Reads nothing more."""
        self._writer.transport.pause_reading()

    def resume(self) -> None:
        """Reads again."""
        with suppress(RuntimeError):  # the server has closed meanwhile
            self._writer.transport.resume_reading()

    def close(self) -> None:
        """Closes."""
        self._writer.close()

    def reset(self) -> None:
        """Closes with RST."""
        reset(self._writer)


async def _read(reader: asyncio.StreamReader, limit: int) -> bytes:
    try:
        async with asyncio.timeout(PATIENCE):
            data = await reader.read(limit)
    except TimeoutError:
        raise SilenceError("no byte") from None
    except OSError as error:
        raise CutError(repr(error)) from None
    if not data:
        raise CutError("closed")
    return data
