"""The worker bus: requests between the workers of one server, over unix sockets in a private folder.

Owns the connections: one for each pair of workers and direction, made for the first request. Knows no kind of request.

1. A worker listens at `<folder>/<number>`. Only the server's user may enter the folder.
2. If a worker is gone, its socket refuses connections, and its open connections end: every request to it fails at once.
   No state of a gone worker is kept, because workers may die again and again.
3. Requests of one connection are answered in any order, as each answer is ready.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from gai_fast.model.limits import SHARED
from gai_fast.server.limits import LIMITS
from gai_fast.server.workers.link import LinkError, LinkMessages, pack

_log: Final = logging.getLogger("gai_fast.server")

Handler = Callable[..., Awaitable[Any]]
"""Answers one kind of request. Its arguments and its result must be MessagePack types."""


class WorkerGone(Exception):
    """The receiver of the request is gone."""


class WorkerBusy(Exception):
    """The receiver does not answer in time, or cannot be reached now. It is not known to be gone."""


class Bus:
    """The requests of one worker to others, and its answers to theirs.

    Args:
        folder: The folder of the server's sockets.
        number: The number of the worker.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number
        self._server: asyncio.Server | None = None
        self._peers: dict[int, _Peer] = {}
        self._answering: set[_Answering] = set()

    async def open(self, handlers: Mapping[str, Handler]) -> None:
        """Starts to answer requests.

        Args:
            handlers: The handlers by the kind of request.

        Raises:
            OSError: The socket cannot be made.
        """
        loop = asyncio.get_running_loop()
        path = str(self._folder / str(self._number))
        self._server = await loop.create_unix_server(
            lambda: _Answering(handlers, self._answering), path, backlog=SHARED.workers
        )

    async def ask(self, worker: int, kind: str, *items: Any, wait: float = SHARED.bus_wait) -> Any:
        """Sends a request to another worker; returns its answer.

        Args:
            worker: The worker's number.
            kind: The kind of request.
            items: Arguments of MessagePack types.
            wait: Seconds to wait for the answer.

        Raises:
            WorkerGone: The worker is gone.
            WorkerBusy: The worker does not answer in time, or cannot be reached now.
        """
        peer = self._peers.get(worker)
        if peer is None:
            peer = self._peers[worker] = _Peer(partial(self._forget, worker))
            path = str(self._folder / str(worker))
            peer.connecting = asyncio.ensure_future(self._connect(peer, path))
        try:
            async with asyncio.timeout(wait):
                return await peer.ask(kind, items)
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            raise WorkerGone(f"worker {worker}") from None
        except OSError:  # no answer in time, or no free descriptor in this process: the worker may still live
            raise WorkerBusy(f"worker {worker}") from None

    async def _connect(self, peer: _Peer, path: str) -> None:
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: peer, path)
        finally:  # after any exception: the next request connects again
            if not peer.is_connected:
                peer.lose()

    def _forget(self, worker: int, peer: _Peer) -> None:
        if self._peers.get(worker) is peer:
            del self._peers[worker]

    def close(self) -> None:
        """Ends all connections."""
        if self._server is not None:
            self._server.close()
        for peer in tuple(self._peers.values()):
            peer.close()
        for answering in tuple(self._answering):
            answering.close()


class _Peer(asyncio.Protocol):
    """The sender's end of a connection.

    Args:
        forget: Called with this object once no request can be sent over it.
    """

    def __init__(self, forget: Callable[[_Peer], object]) -> None:
        self.connecting: asyncio.Future[None] | None = None
        self._forget = forget
        self._is_lost = False
        self._transport: asyncio.Transport | None = None
        self._messages = LinkMessages()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._count = 0

    @property
    def is_connected(self) -> bool:
        """Whether requests can be written."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, kind: str, items: tuple[Any, ...]) -> Any:
        """Sends a request; returns its answer. Raises `OSError` if the worker is gone, or does not read requests."""
        if self.connecting is not None:
            await asyncio.shield(self.connecting)  # other requests wait for it too
        if self._transport is None or self._is_lost:
            raise ConnectionResetError
        if self._transport.get_write_buffer_size() > LIMITS.link_unsent:
            raise ConnectionAbortedError
        self._count += 1
        number = self._count
        question = pack(kind, number, *items)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._transport.write(question)
        try:
            return await answer
        finally:
            del self._asked[number]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a socket's transport

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, value in self._messages.feed(data):
                answer = self._asked.get(number)
                if answer is None or answer.done():
                    continue
                if kind == "answer":
                    answer.set_result(value)
                else:
                    answer.set_exception(ConnectionAbortedError(value))
        except (LinkError, ValueError) as problem:
            _log.error("another worker's answer cannot be read: %s", problem)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())

    def lose(self) -> None:
        """Sends no further requests over this connection: the next request makes a new one."""
        self._is_lost = True
        self._forget(self)

    def close(self) -> None:
        self.lose()
        if self._transport is not None:
            self._transport.abort()


class _Answering(asyncio.Protocol):
    """The receiver's end of a connection."""

    def __init__(self, handlers: Mapping[str, Handler], all_: set[_Answering]) -> None:
        self._handlers = handlers
        self._all = all_
        self._messages = LinkMessages()
        self._transport: asyncio.Transport
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a socket's transport
        self._all.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, *items in self._messages.feed(data):
                handler = self._handlers[kind]
                task = asyncio.get_running_loop().create_task(self._answer(handler, number, items))
                self._tasks.add(task)
                task.add_done_callback(self._answered)
        except (LinkError, ValueError, KeyError) as problem:
            _log.error("another worker's question cannot be read: %r", problem)
            self.close()

    async def _answer(self, handler: Handler, number: int, items: list[Any]) -> None:
        answer = pack("failed", number, "a bug of the worker that was asked")
        try:
            answer = pack("answer", number, await handler(*items))
        finally:  # after any exception: the sender must not wait for its whole timeout
            if not self._transport.is_closing():
                self._transport.write(answer)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a question of another worker could not be answered: a bug", exc_info=task.exception())

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        for task in self._tasks:
            task.cancel()

    def close(self) -> None:
        self._transport.abort()
