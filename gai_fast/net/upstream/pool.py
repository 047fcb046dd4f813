"""The connections to one upstream: making and closing them.

Owns the path to an upstream: a socket, a proxy's tunnel, TLS. It must not know which exchange gets a connection
(`connection_pool.py`), nor the meaning of a response, retries and other upstreams. Proxies come from the configuration
only; `config/` reads `HTTPS_PROXY` for `proxy = "env"`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from gai_fast.kernels import ReadBatch, SocketSet
from gai_fast.model.errors import Error
from gai_fast.model.settings import Peer
from gai_fast.net.sockets.plain_transport import PlainTransport
from gai_fast.net.upstream.connection import Timeouts, UpstreamConnection
from gai_fast.net.upstream.connection_pool import (
    ConnectAttempt,
    ConnectionPool,
    ConnectionShare,
    NoteWait,
    PoolCallbacks,
    ignore_wait,
)
from gai_fast.net.upstream.dialing import Host, Role, reason_of
from gai_fast.net.upstream.http_request import Origin
from gai_fast.net.upstream.proxy import Proxy, open_tunnel
from gai_fast.net.upstream.tls import TLS, TLSFiles
from gai_fast.runtime.timers import Timers


class UpstreamPool(ConnectionPool):
    """Keep-alive connections to one upstream; belongs to one loop and its thread.

    Changes with the ways to an upstream: DNS, proxies, TLS. `ConnectionPool` changes with the rules by which exchanges
    get connections; it is compiled, and this class awaits.

    Args:
        peer: The host. Its URL is http or https; see `Origin.parse`. Without TLS files, the system's authorities are
            trusted, with TLS ≥ 1.2 and a checked host name.
        timers: The loop's wheel; its clock is the pool's.
        max_connections: Maximum number of connections, including idle ones and those being made. Further requests wait,
            up to `limits.pool_waiting`.
        pool_wait: As for `ConnectionPool`.
        waited: As for `ConnectionPool`.
        min_idle: As for `ConnectionPool`.
        share: As for `ConnectionPool`.
        loop: The running loop by default.

    Raises:
        ValueError: The peer's URL or proxy is not acceptable, or a TLS file cannot be used (`TLSFileError`).
    """

    def __init__(
        self,
        peer: Peer,
        *,
        timers: Timers,
        max_connections: int,
        pool_wait: float = 1.0,
        waited: NoteWait = ignore_wait,
        min_idle: int = 0,
        share: ConnectionShare | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(
            Origin.parse(peer.url),
            Timeouts(peer.connect_timeout, peer.idle_timeout, peer.total_timeout),
            timers=timers,
            max_connections=max_connections,
            pool_wait=pool_wait,
            waited=waited,
            min_idle=min_idle,
            share=share,
            loop=loop or asyncio.get_running_loop(),
        )
        proxy = self._proxy = None if peer.proxy is None else Proxy.parse(peer.proxy.reveal())
        first_hop = self.origin if proxy is None else proxy.origin
        role: Role = "upstream" if proxy is None else "proxy"
        self._host = Host(first_hop.host, first_hop.port, role, self._loop, timers.clock)
        self._readers = SocketSet(self._loop)
        self._tls: TLS | None = None
        if self.origin.scheme == "https":
            self._tls = TLS(self.origin, self._loop, timers.clock, self._readers, TLSFiles.of(peer).context())
        self._batch = ReadBatch(self._loop, timers.clock)

    async def close(self) -> None:
        """Closes all connections; exchanges fail with `network`, reason `closed`. Returns when the sockets are gone."""
        self._closed = True
        attempts = tuple(self._attempts)
        for exchange in [*self._waiting, *self._seeking]:
            exchange.fail(self._gone())
        for attempt in attempts:
            self._stop(attempt)
        await asyncio.gather(*[attempt.work for attempt in attempts if attempt.work], return_exceptions=True)
        await self._host.close()
        for connection in tuple(self._open):
            connection.fail(self._gone())
        await self._emptied.wait()
        self.close_empty()

    def close_empty(self) -> None:
        """Closes a pool that has neither connections nor exchanges, at once."""
        self._closed = True
        for timer in (self._expiry, self._refill, self._wait_timer, self._next_ask, self._borrowed_expiry):
            if timer is not None:
                timer.cancel()
        self._batch.close()  # the loop refers to the batch once it has borrowed a socket, and also to the readers
        self._readers.close()

    def _make_at_once(self) -> UpstreamConnection | None:
        if self._tls is not None or self._proxy is not None:
            return None
        sock = self._host.connect_at_once()
        if sock is None:
            return None
        self._readers.defer()  # a new request is sent before the responses to earlier ones are read
        try:
            return self._connection(sock)
        except OSError:
            return None

    def _make(self, attempt: ConnectAttempt) -> None:
        task = attempt.work = self._loop.create_task(self._work(attempt))
        attempt.stop = task.cancel
        task.add_done_callback(lambda _: self._ended(attempt))

    async def _work(self, attempt: ConnectAttempt) -> None:
        try:
            self._made(attempt, await self._secure(await self._dial()))
        except Error as error:
            self._failed(attempt, error)
        except Exception as problem:  # noqa: BLE001  # a bug of ours must not leave an exchange without an end
            self._broke(attempt, problem)
        except asyncio.CancelledError:  # by `close` of an exchange or of the pool, or with the loop
            self._failed(attempt, self._gone())
            raise

    # ---- how a connection is made

    async def _dial(self) -> socket.socket:
        """Returns a socket connected to the upstream, directly or through the proxy's tunnel.

        Raises:
            Error: From `Host.dial` or `open_tunnel`.
        """
        sock = await self._host.dial()
        if self._proxy is None:
            return sock
        is_open = False
        try:
            await open_tunnel(self._loop, sock, self._proxy, self.origin)
            is_open = True
        except OSError as exc:
            text = f"the connection to the proxy {self._proxy.origin.peer} broke ({reason_of(exc)})"
            raise Error("network", text, reason="proxy") from exc
        finally:
            if not is_open:
                sock.close()
        return sock

    async def _secure(self, sock: socket.socket) -> UpstreamConnection:
        """Returns the connection on a socket, after the TLS handshake for https.

        Raises:
            Error: `network`, with the reasons `connect` or `tls`.
        """
        if self._tls is None:
            return await self._plain(sock)
        connection = self._new_connection()
        try:
            await self._tls.connect(sock, connection)
        except Error:
            if self._proxy is None:
                self._host.forget()  # the address may belong to another host by now
            raise
        return connection

    async def _plain(self, sock: socket.socket) -> UpstreamConnection:
        """Returns the connection on a socket after the loop has read once, so that an early end or byte is noticed.

        Raises:
            Error: `network`, reason `connect`, if the loop cannot watch the socket.
        """
        try:
            connection = self._connection(sock)
        except OSError as exc:
            raise self._unusable(exc) from exc
        is_made = False
        try:
            for _ in range(2):  # asyncio's loop polls its sockets in the next turn and reads them at the end of it
                await asyncio.sleep(0)
            is_made = True
        finally:
            if not is_made:  # cancelled
                connection.abort()
        return connection

    def _connection(self, sock: socket.socket) -> UpstreamConnection:
        """Returns the connection without TLS on a socket.

        Raises:
            OSError: The loop cannot watch the socket, which is then closed.
        """
        connection = self._new_connection()
        PlainTransport(self._loop, sock, connection, self._readers)
        return connection

    def _new_connection(self) -> UpstreamConnection:
        return UpstreamConnection(PoolCallbacks(self), self._batch, self._known)

    def _unusable(self, problem: OSError) -> Error:
        error = Error("network", f"cannot connect to {self._peer} ({reason_of(problem)})", reason="connect")
        error.__cause__ = problem
        return error


async def open_all(*openings: Callable[[], Awaitable[None]]) -> None:
    """Calls the `open` of each part, one after the other."""
    for opening in openings:
        await opening()


async def close_all(*closings: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Calls the `close` of each part, one after the other. If one fails, the others are still closed."""
    async with AsyncExitStack() as stack:
        for closing in reversed(closings):
            stack.push_async_callback(closing)


async def close_together(*closings: Awaitable[None]) -> None:
    """Runs the closings concurrently and waits for all."""
    await asyncio.gather(*closings)
