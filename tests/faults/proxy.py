"""A TCP proxy with faults, between the gateway and an upstream: what the network and a dying peer do to an answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

from tests.wire import reset


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of the answers of one connection. Requests pass untouched.

    Args:
        after: Bytes of answers that pass before `then`. None if it never happens.
        then: `reset` (RST), `close` (FIN both ways), `half_close` (FIN, and still reading), `stall` (silence).
        slice: Bytes per write; 0: as they come.
        pause: Seconds after each write.
        rate: Bytes a second; 0: unlimited.
        latency: Seconds before each read is passed on.
        is_down: Each connection is reset before anything is read of it.
    """

    after: int | None = None
    then: Literal["reset", "close", "half_close", "stall"] = "reset"
    slice: int = 0
    pause: float = 0.0
    rate: float = 0.0
    latency: float = 0.0
    is_down: bool = False


NONE = Faults()


class FaultProxy:
    """Passes connections on to one upstream.

    Args:
        url: The upstream's.
        faults: For the first connections; may be replaced at any time, for the next one.
        times: The number of connections that have the faults. None if all have.

    Attributes:
        connections: Connections accepted so far.
        left: Connections that the gateway has closed.
        passed: Bytes of answers that were passed on.
    """

    def __init__(self, url: str, faults: Faults = NONE, times: int | None = None) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._upstream = host, int(port)
        self.faults = faults
        self.times = times
        self.connections = 0
        self.left = 0
        self.passed = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Its base URL."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *problem: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Resets the connections of the moment."""
        for writer in self._writers:
            reset(writer)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._run(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        faults = self.faults if self.times is None or self.connections <= self.times else NONE
        if faults.is_down:
            reset(writer)
            return
        from_upstream, to_upstream = await asyncio.open_connection(*self._upstream)
        self._writers.add(writer)
        requests = asyncio.get_running_loop().create_task(self._pass_requests(reader, to_upstream))
        try:
            if await self._pass_answers(from_upstream, writer, faults, requests):
                reset(writer)
        except OSError:
            reset(writer)
        finally:
            self._writers.discard(writer)
            requests.cancel()
            to_upstream.transport.abort()
            writer.close()

    async def _pass_requests(self, reader: asyncio.StreamReader, to_upstream: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                to_upstream.write(data)
                await to_upstream.drain()
        self.left += 1

    async def _pass_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults, requests: asyncio.Task[None]
    ) -> bool:
        """Passes answers on until their end, the gateway's or the fault; returns whether the end is a reset."""
        room = faults.after
        while True:
            read = asyncio.ensure_future(reader.read(65536))
            try:
                await asyncio.wait([read, requests], return_when=asyncio.FIRST_COMPLETED)
            finally:
                read.cancel()
            data = read.result() if read.done() and not read.cancelled() else b""
            if not data:
                return False
            await _pause(faults.latency)
            while data:
                size = min(faults.slice or len(data), len(data) if room is None else room)
                piece, data = data[:size], data[size:]
                if piece:
                    writer.write(piece)
                    await _flushed(writer)
                    self.passed += len(piece)
                    await _pause(faults.pause + (len(piece) / faults.rate if faults.rate else 0.0))
                if room is not None:
                    room -= size
                    if not room:
                        return await self._fail(writer, faults, requests)

    async def _fail(self, writer: asyncio.StreamWriter, faults: Faults, requests: asyncio.Task[None]) -> bool:
        if faults.then == "half_close":
            writer.write_eof()
        if faults.then in ("half_close", "stall"):
            await asyncio.wait([requests])
        return faults.then == "reset"


async def _pause(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)


async def _flushed(writer: asyncio.StreamWriter) -> None:
    """Returns when the system has every byte, so that a reset does not overtake them."""
    await writer.drain()
    while writer.transport.get_write_buffer_size() and not writer.is_closing():  # noqa: ASYNC110  # transports do not tell
        await asyncio.sleep(0)
