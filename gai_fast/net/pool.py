"""The connections to one upstream: making and closing them.

Owns the addresses that a connection may go to (DNS, forbidden addresses, TCP, TLS). It must not know which exchange
gets a connection (`connection_pool.py`), nor the meaning of an answer, retries and other upstreams. The proxy
environment is not read: only the configuration names upstreams.

A resolved address is checked and then connected to as it is, so that no second look-up can give another one (DNS
rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Any, Final, Protocol, cast

from gai_fast._impl import ReadBatch
from gai_fast.errors import Error
from gai_fast.limits import LIMITS
from gai_fast.net.connection_pool import ConnectionPool
from gai_fast.net.http_request import Origin, is_ip_address
from gai_fast.net.sockets import no_descriptors
from gai_fast.net.tls import TLS, said
from gai_fast.net.upstream import Exchange, Timeouts, UpstreamConnection
from gai_fast.timers import Timers

_Address = tuple[socket.AddressFamily, Any]
"""A family and a socket address of it, resolved."""


class UpstreamPool(ConnectionPool):
    """Keep-alive connections to one upstream; belongs to one loop and its thread.

    Args:
        base_url: http or https; see `Origin.parse`.
        timers: The loop's wheel; its clock is the pool's.
        connect_timeout: Seconds for DNS, TCP and TLS together.
        idle_timeout: Seconds without a byte of an answer while reading is on.
        total_timeout: Seconds from `open` to the end of the answer, waiting included.
        max_connections: Connections in all, idle and connecting ones included; more requests wait, first come, first
            served, up to `limits.pool_waiting`.
        ssl_context: For https; the system's trusted authorities, TLS ≥ 1.2 and a checked host name where not given.
        loop: The running one where not given.

    Raises:
        ValueError: `base_url` is not acceptable.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timers: Timers,
        connect_timeout: float,
        idle_timeout: float,
        total_timeout: float,
        max_connections: int,
        ssl_context: ssl.SSLContext | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(
            Origin.parse(base_url),
            Timeouts(connect_timeout, idle_timeout, total_timeout),
            timers=timers,
            max_connections=max_connections,
            loop=loop or asyncio.get_running_loop(),
        )
        host, port = self.origin.host, self.origin.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._literal: list[_Address] | None = [(family, (host, port))] if is_ip_address(host) else None
        self._tls: TLS | None = None
        if self.origin.scheme == "https":
            self._tls = TLS(self.origin, self._loop, timers.clock, ssl_context)
        self._batch = ReadBatch(self._loop, timers.clock)

    async def close(self) -> None:
        """Ends all connections, and exchanges with `network`, reason `closed`; returns when the sockets are gone."""
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        connecting = dict(self._connecting)
        for exchange in [*self._waiting, *connecting.values()]:
            exchange.fail(self._gone())
        await asyncio.gather(*connecting, return_exceptions=True)
        for connection in tuple(self._open):
            connection.fail(self._gone())
        await self._emptied.wait()
        self._batch.close()

    def _connect(self, exchange: Exchange) -> None:
        task = self._loop.create_task(self._connect_for(exchange))
        self._connecting[task] = exchange
        task.add_done_callback(self._connect_ended)
        exchange.begin_connecting(task.cancel)

    def _connect_ended(self, task: asyncio.Task[None]) -> None:
        del self._connecting[task]
        self._serve_waiting()

    async def _connect_for(self, exchange: Exchange) -> None:
        try:
            sock = await self._dial()
            if self._tls is None:
                # From here on it is not cancelled: uvloop closes the transport of a cancelled create_connection without
                # calling its protocol's `connection_lost`.
                exchange.abandon_by(functools.partial(_shut, sock))
            self._begin_on(await self._make(sock), exchange)
        except Error as error:
            exchange.fail(error)
        except Exception as problem:  # noqa: BLE001  # a bug of ours must not leave the exchange without an end
            exchange.broke(problem)
        except asyncio.CancelledError:  # by `close` of the exchange, which has ended then, or with the loop
            exchange.fail(self._gone())
            raise

    def _begin_on(self, connection: UpstreamConnection, exchange: Exchange) -> None:
        self._opened += 1
        if exchange.has_ended:
            connection.abort()
        elif connection.is_closing:
            text = f"{self._peer} closed the connection, or spoke, before it was asked: check base_url"
            exchange.fail(Error("network", text, reason="reset"))
        else:
            exchange.begin(connection, reused=False)

    # ---- how a connection is made

    async def _dial(self) -> socket.socket:
        """Returns a socket that is connected to an address that was checked.

        Raises:
            Error: `network`, with the reasons `dns`, `forbidden_address`, `connect`; or `overloaded`, with the reason
                `descriptors`.
        """
        addresses = await self._resolve()
        if any(is_forbidden_address(address[0]) for _, address in addresses):
            text = f"{self._peer} is a link-local or metadata address, which no upstream may have: check base_url"
            raise Error("network", text, reason="forbidden_address")
        try:
            return await _connect_first(self._loop, addresses)
        except OSError as exc:
            text = f"cannot connect to {self._peer} ({reason_of(exc)}): "
            text += "check base_url, and that the upstream is running"
            raise no_descriptors(exc) or Error("network", text, reason="connect") from exc

    async def _make(self, sock: socket.socket) -> UpstreamConnection:
        """Returns the connection on a connected socket, after its handshake where there is one.

        Raises:
            Error: `network`, with the reasons `connect` or `tls`.
        """
        connection = UpstreamConnection(self, self._batch)
        if self._tls is not None:
            await self._tls.connect(sock, connection)
            return connection
        try:
            await self._loop.create_connection(cast("Callable[[], Any]", lambda: connection), sock=sock)
        except OSError as exc:
            raise Error("network", f"cannot connect to {self._peer} ({reason_of(exc)})", reason="connect") from exc
        return connection

    async def _resolve(self) -> list[_Address]:
        if self._literal is not None:
            return self._literal
        host, port = self.origin.host, self.origin.port
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            text = f"the host name {host} cannot be resolved ({reason_of(exc)}): check base_url and the DNS"
            raise no_descriptors(exc) or Error("network", text, reason="dns") from exc
        return [(family, address) for family, _, _, _, address in found]


class Closable(Protocol):
    """An object that is closed asynchronously."""

    async def close(self) -> None:
        """Returns when it is closed."""


async def close_all(parts: Sequence[Closable]) -> None:
    """Closes one after the other."""
    for part in parts:
        await part.close()


@functools.lru_cache(LIMITS.known_addresses)
def is_forbidden_address(address: str) -> bool:
    """Whether an IP address is link-local or a cloud's metadata service, also where it is wrapped in IPv6."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(ip.packed[-4:]) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or nat64 or ip
    return any(ip in network for network in _FORBIDDEN)


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_FORBIDDEN: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",  # link-local: the metadata service of AWS, Google, Azure and most others
            "fe80::/10",
            "fd00:ec2::254/128",  # AWS
            "fd20:ce::254/128",  # Google
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure's host agent
            "192.0.0.192/32",  # Oracle
        ),
    )
)


def _shut(sock: socket.socket) -> None:
    """Shuts a socket down, so that the operation under way on it fails."""
    with contextlib.suppress(OSError):  # it may be closed already
        sock.shutdown(socket.SHUT_RDWR)


async def _connect_first(loop: asyncio.AbstractEventLoop, addresses: list[_Address]) -> socket.socket:
    """Returns the socket that connects first: families alternate, each address starts a little later (RFC 8305).

    Raises:
        OSError: No address could be connected to; the failure of the last one.
    """
    if len(addresses) == 1:
        return await _connect_one(loop, *addresses[0])
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    left = [address for address in chain(*zip_longest(first, other)) if address is not None]
    attempts: list[asyncio.Task[socket.socket]] = []
    pending: set[asyncio.Task[socket.socket]] = set()
    winner: socket.socket | None = None
    failure: BaseException = OSError("no address")
    try:
        while left or pending:
            if left:
                attempts.append(loop.create_task(_connect_one(loop, *left.pop(0))))
                pending.add(attempts[-1])
            done, pending = await asyncio.wait(
                pending,
                timeout=LIMITS.connect_stagger if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                failed = task.exception()
                if failed is None:
                    winner = task.result()
                    return winner
                failure = failed
        raise failure
    finally:
        for task in attempts:
            if not task.done():
                task.cancel()
            elif task.exception() is None and task.result() is not winner:
                task.result().close()


async def _connect_one(loop: asyncio.AbstractEventLoop, family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    is_connected = False
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await connected(loop, sock, address)
        is_connected = True
    finally:
        if not is_connected:  # a cancelled attempt, too, must not leave its socket open
            sock.close()
    return sock


async def connected(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> None:
    """Waits until the socket is connected to a resolved address.

    uvloop's `sock_connect` would resolve the address again in a thread. That takes longer than connecting, and once a
    process has a thread each of its system calls costs a little more.

    Raises:
        OSError: It was refused.
    """
    error = sock.connect_ex(address)
    if error in _UNDER_WAY:
        error = sock.connect_ex(address)  # to this machine it has succeeded, or failed, by now
    if error in _UNDER_WAY:
        writable = loop.create_future()
        loop.add_writer(sock, _set, writable)
        try:
            await writable
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error not in (0, errno.EISCONN):
        raise OSError(error, os.strerror(error))


_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY, errno.EINTR)  # an interrupted one goes on, too (POSIX, connect)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def reason_of(exc: OSError) -> str:
    """Returns the system's message, without the address that asyncio puts in its place.

    Args:
        exc: The reason why a connection could not be made.
    """
    if isinstance(exc, ssl.SSLError):
        return said(exc)
    if isinstance(exc, socket.gaierror) or exc.errno is None:
        return exc.strerror or type(exc).__name__
    return os.strerror(exc.errno)
