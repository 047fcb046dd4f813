"""Helpers for sockets of asyncio's transports: descriptors and their exhaustion, addresses, unsent bytes, resets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import select
import socket
import struct
import sys
import termios
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.sockets.socket_transport import Transport

_log: Final = logging.getLogger("gai_fast.engine")

_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""`struct linger`: on, with a time of 0. Closing then resets the connection (POSIX, `SO_LINGER`)."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)


def descriptor_error(problem: OSError, *, of_resolver: bool = False) -> Error | None:
    """Returns the error for a process or machine without free descriptors. None if the problem is another one.

    Args:
        problem: The failure.
        of_resolver: Whether a look-up has failed. If it cannot open a file, it reports an unknown name, or any error of
            the system, such as EBUSY of `mdns4_minimal`.
    """
    is_unclear = of_resolver or isinstance(problem, socket.gaierror)
    if problem.errno not in _EXHAUSTED and not (is_unclear and _is_exhausted()):
        return None
    text = "the server has no file descriptor left: the operator should raise its limit (ulimit -n)"
    wait = SHARED.overloaded_ms
    error = Error("overloaded", text, reason="descriptors", retry_after_ms=wait, phase="connect")
    error.__cause__ = problem
    return error


def unsent_error(problem: Exception, upstream: str) -> Error:
    """Returns the error of a request that could not be sent. Logs a bug.

    Args:
        problem: The failure; an `Error` is returned as it is.
        upstream: The upstream's name.
    """
    if isinstance(problem, Error):
        return problem
    lack = descriptor_error(problem) if isinstance(problem, OSError) else None
    if lack is not None:
        return lack
    _log.error("a request cannot be sent to upstream %s: a bug", upstream, exc_info=problem)
    return Error("internal", f"the gateway failed to build the request for upstream {upstream!r}", reason="request")


def _is_exhausted() -> bool:
    try:
        socket.socket().close()
    except OSError as problem:
        return problem.errno in _EXHAUSTED
    return False


def descriptor_of(transport: asyncio.BaseTransport | Transport) -> int:
    """Returns the descriptor of a transport's socket. -1 if it has none or the socket carries TLS."""
    if transport.get_extra_info("sslcontext") is not None:
        return -1
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())


def has_arrived(transport: asyncio.BaseTransport | Transport) -> bool:
    """Returns whether a transport's socket has unread bytes or an unread end of input."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def peer_address(transport: asyncio.BaseTransport) -> str:
    """Returns the peer's address; empty if the connection has none, for example over a unix socket."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""


def unacknowledged_bytes(transport: asyncio.WriteTransport) -> int:
    """Returns the number of written bytes that the peer has not acknowledged; 0 if the transport's buffer is empty.

    The transport's buffer alone is not enough: the system accepts more bytes only once a third of its own buffer is
    free, so a peer that reads slowly would seem to make no progress until then.
    """
    sock = transport.get_extra_info("socket")  # before the size: this call flushes the bytes just written
    unsent = transport.get_write_buffer_size()
    if sock is not None and unsent:
        with contextlib.suppress(OSError, ValueError):  # already closed, or not supported by the system
            unsent += int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return unsent


def reset_connection(transport: asyncio.WriteTransport) -> None:
    """Aborts a connection with a reset instead of an orderly end; unsent bytes are lost.

    A body without a length or chunks ends with its connection, so after an orderly end it would look complete.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # already closed
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
