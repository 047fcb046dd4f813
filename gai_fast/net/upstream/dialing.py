"""Connecting sockets to a host: name resolution, and a race between the host's addresses.

Owns the look-up of names and its cache, and the order in which addresses are tried. It must not know TLS, HTTP or the
limits of an upstream.

A resolved address is checked, and then this same address is connected to. A second look-up could return another address
(DNS rebinding).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any, Final, Literal

from gai_fast.model.addresses import is_forbidden_address, is_loopback
from gai_fast.model.errors import Error
from gai_fast.net.limits import LIMITS
from gai_fast.net.sockets.sockets import descriptor_error
from gai_fast.net.sockets.stream_socket import NOT_BLOCKING, StreamSocket
from gai_fast.net.upstream.http_request import is_ip_address

_Address = tuple[socket.AddressFamily, Any]
"""An address family and a resolved socket address of this family."""

Role = Literal["upstream", "proxy"]
_KEEP_ALIVE: Final = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", LIMITS.keep_alive_after),
        ("TCP_KEEPALIVE", LIMITS.keep_alive_after),  # as TCP_KEEPIDLE, on macOS
        ("TCP_KEEPINTVL", LIMITS.keep_alive_every),
        ("TCP_KEEPCNT", LIMITS.keep_alive_probes),
    )
    if hasattr(socket, name)
)
"""Options by which the system notices that a silent upstream's machine has vanished."""
_KEYS: Final[dict[Role, str]] = {"upstream": "base_url", "proxy": "proxy"}


class Host:
    """The addresses of one host, and connections to it.

    A DNS result is used for `limits.dns_fresh` seconds. In the second half of that time, a use starts another look-up
    in the background. If a look-up fails, the last result is used until it is `limits.dns_stale` seconds old.

    Args:
        name: A name or an IP address, without brackets.
        port: A port.
        role: Whether the host is an upstream or a proxy, for messages.
        loop: The loop.
        clock: Monotonic seconds.
    """

    def __init__(
        self, name: str, port: int, role: Role, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]
    ) -> None:
        self._name = name
        self._port = port
        self._peer = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        self._role = role
        self._loop = loop
        self._clock = clock
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        self._literal: list[_Address] | None = [(family, (name, port))] if is_ip_address(name) else None
        self._near: _Address | None = self._literal[0] if self._literal is not None and is_loopback(name) else None
        self._found: list[_Address] = []
        self._found_at = 0.0
        self._is_doubted = False
        self._look_up: asyncio.Task[list[_Address]] | None = None

    def connect_at_once(self) -> socket.socket | None:
        """Connects to an address of this machine, without waiting: the system completes both sides at once.

        Returns:
            The socket. None if the host is not a single address of this machine or the connection failed; `dial`
            reports the reason.
        """
        if self._near is None:
            return None
        family, address = self._near
        sock: socket.socket | None = None
        is_connected = False
        try:
            sock = _new_socket(family)
            is_connected = _connect(sock, address) in _CONNECTED
        except OSError:
            return None
        finally:
            if sock is not None and not is_connected:
                sock.close()
        return sock if is_connected else None

    async def dial(self) -> socket.socket:
        """Returns a socket that is connected to a checked address.

        Raises:
            Error: `network`, with the reasons `dns`, `forbidden_address`, `connect`; or `overloaded`, with the reason
                `descriptors`.
        """
        addresses = await self._addresses()
        if any(is_forbidden_address(address[0]) for _, address in addresses):
            self.forget()
            what = "is a link-local or metadata address, which no upstream may have"
            text = f"{self._peer} {what}: check {_KEYS[self._role]}"
            raise Error("network", text, reason="forbidden_address")
        try:
            return await _connect_first(self._loop, addresses)
        except OSError as exc:
            self.forget()
            text = f"cannot connect to {self._peer} ({reason_of(exc)}): "
            text += f"check {_KEYS[self._role]}, and that the {self._role} is running"
            raise descriptor_error(exc) or Error("network", text, reason="connect") from exc

    def forget(self) -> None:
        """Distrusts the cached addresses, as the host may have moved. They are used only if the next look-up fails."""
        self._is_doubted = True

    async def close(self) -> None:
        """Cancels a running look-up."""
        if self._look_up is not None:
            self._look_up.cancel()
            await asyncio.wait([self._look_up])

    async def _addresses(self) -> list[_Address]:
        """Returns the addresses, at least one.

        Raises:
            Error: `network`, with the reasons `dns` or `closed`; or `overloaded`, with the reason `descriptors`.
        """
        if self._literal is not None:
            return self._literal
        age = self._clock() - self._found_at
        is_needed = not self._found or self._is_doubted or age >= LIMITS.dns_fresh
        if is_needed or age >= LIMITS.dns_fresh / 2:
            look_up = self._look_up
            if look_up is None:
                look_up = self._look_up = self._loop.create_task(self._resolve())
                look_up.add_done_callback(self._looked_up)
            if is_needed:
                await asyncio.wait([look_up])  # shared: a cancelled waiter must not cancel it
                if look_up.cancelled():
                    raise Error("network", f"the look-up of {self._name} was given up", reason="closed")
                problem = look_up.exception()
                if problem is None:
                    return look_up.result()  # not `_found`: another waiter may have distrusted it already
                if not self._found or age >= LIMITS.dns_stale:
                    raise self._unresolved(problem)
        return self._found

    def _unresolved(self, problem: BaseException) -> BaseException:
        if not isinstance(problem, OSError):
            return problem  # a bug
        text = f"the host name {self._name} cannot be resolved ({reason_of(problem)}): "
        text += f"check {_KEYS[self._role]} and the DNS"
        error = descriptor_error(problem, of_resolver=True) or Error("network", text, reason="dns")
        error.__cause__ = problem
        return error

    def _looked_up(self, look_up: asyncio.Task[list[_Address]]) -> None:
        if self._look_up is look_up:
            self._look_up = None
        if not look_up.cancelled():
            look_up.exception()  # marks it as retrieved; it is raised to the waiters

    async def _resolve(self) -> list[_Address]:
        found = await self._loop.getaddrinfo(self._name, self._port, type=socket.SOCK_STREAM)
        self._found = [(family, address) for family, _, _, _, address in found[: LIMITS.dns_addresses]]
        self._found_at = self._clock()
        self._is_doubted = False
        return self._found


async def _connect_first(loop: asyncio.AbstractEventLoop, addresses: list[_Address]) -> socket.socket:
    """Returns the socket that connects first. Families alternate, and the attempts are staggered (RFC 8305).

    Raises:
        OSError: No address could be connected to; the last failure.
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
    sock = _new_socket(family)
    is_connected = False
    try:
        await connected(loop, sock, address)
        is_connected = True
    finally:
        if not is_connected:  # also if cancelled
            sock.close()
    return sock


def _new_socket(family: socket.AddressFamily) -> socket.socket:
    """Returns a non-blocking socket.

    Raises:
        OSError: The process has no descriptor left.
    """
    sock = StreamSocket(family, NOT_BLOCKING)
    if NOT_BLOCKING == socket.SOCK_STREAM:
        sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


def _connect(sock: socket.socket, address: Any) -> int:
    """Starts to connect; returns the error number of the result so far."""
    error = sock.connect_ex(address)
    return sock.connect_ex(address) if error in _UNDER_WAY else error  # on one machine the second call gives the result


async def connected(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> None:
    """Waits until the socket is connected to a resolved address.

    The loop's `sock_connect` would wait for a turn of the loop also on one machine, where the second call of `connect`
    has the result.

    Raises:
        OSError: The connection failed.
    """
    error = _connect(sock, address)
    if error in _UNDER_WAY:
        writable = loop.create_future()
        loop.add_writer(sock, _set, writable)
        try:
            await writable
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error not in _CONNECTED:
        raise OSError(error, os.strerror(error))


_CONNECTED: Final = (0, errno.EISCONN)
_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY, errno.EINTR)  # EINTR: the connection continues (POSIX, connect)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def reason_of(exc: OSError) -> str:
    """Returns the system's message for a failed connection, instead of asyncio's, which contains the address.

    Args:
        exc: The failure.
    """
    if isinstance(exc, socket.gaierror) or exc.errno is None:
        return exc.strerror or type(exc).__name__
    return os.strerror(exc.errno)
