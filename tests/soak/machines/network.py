"""The network between a machine and its store: a proxy that refuses, keeps silent, or leads to another server.

It passes bytes both ways and changes none. Bytes that come while it keeps silent are passed on afterwards, as by
TCP.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.wire import reset


class StoreLink:
    """The connections of one machine to a store on loopback.

    Args:
        port: The store's.
    """

    def __init__(self, port: int) -> None:
        self._store = port
        self._is_refusing = False
        self._passes = asyncio.Event()
        self._passes.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        """The store's URL for the machine."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Closes everything."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def refuse(self) -> None:
        """Resets all connections, and each new one, until `heal`."""
        self._is_refusing = True
        self._reset_all()

    def silence(self) -> None:
        """Passes nothing on, until `heal`."""
        self._passes.clear()

    def heal(self) -> None:
        """Passes everything on."""
        self._is_refusing = False
        self._passes.set()

    def lead_to(self, port: int) -> None:
        """Leads to another server, and resets the connections to the former one."""
        self._store = port
        self._reset_all()

    def _reset_all(self) -> None:
        for writer in self._writers:
            reset(writer)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._run(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: reset(writer))  # it may be cancelled before it has begun

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_refusing:
            return
        try:
            from_store, to_store = await asyncio.open_connection("127.0.0.1", self._store)
        except OSError:
            return
        self._writers.add(writer)
        ways = [
            asyncio.ensure_future(self._pass(reader, to_store)),
            asyncio.ensure_future(self._pass(from_store, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers.discard(writer)
            to_store.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
