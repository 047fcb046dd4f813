"""Sockets: descriptors and addresses of asyncio's transports, a process that has none left, and ends with a reset."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import select
import socket
import struct
import sys
import termios
from typing import Any, Final, Protocol

from gai_fast.model.errors import Error
from gai_fast.model.limits import LIMITS

_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""`struct linger`: on, for no time. The system then ends the connection with a reset (POSIX, `SO_LINGER`)."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)


def no_descriptors(problem: OSError) -> Error | None:
    """The error of a process or a machine that can open nothing more; `None`: the problem is another one."""
    # A resolver that cannot open a file says that it does not know the name.
    if problem.errno not in _EXHAUSTED and not (isinstance(problem, socket.gaierror) and _is_exhausted()):
        return None
    text = "the server has no file descriptor left: the operator should raise its limit (ulimit -n)"
    wait = LIMITS.overloaded_ms
    error = Error("overloaded", text, reason="descriptors", retry_after_ms=wait, phase="connect")
    error.__cause__ = problem
    return error


def _is_exhausted() -> bool:
    try:
        socket.socket().close()
    except OSError as problem:
        return problem.errno in _EXHAUSTED
    return False


class HasSocket(Protocol):
    """A transport, for what is known of its socket."""

    def get_extra_info(self, name: str, /) -> Any:
        """As asyncio's transports."""


def descriptor_of(transport: HasSocket) -> int:
    """The descriptor of a transport's socket; -1: it has none, or its bytes are not those that it is given (TLS)."""
    if transport.get_extra_info("sslcontext") is not None:
        return -1
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())


def has_arrived(transport: HasSocket) -> bool:
    """Whether a transport's socket has bytes, or the end, that nobody has read yet."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def peer_address(transport: asyncio.BaseTransport) -> str:
    """The address that a connection comes from; empty where it has none, as a unix socket."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""


def untaken(transport: asyncio.WriteTransport) -> int:
    """Bytes written to a transport that its peer has not acknowledged; 0 where the transport itself holds none.

    The transport's buffer alone tells too little: the system takes more from it only once a third of its own buffer is
    free, so a peer that reads slowly would seem to take nothing for as long as that lasts.
    """
    sock = transport.get_extra_info("socket")  # first, as it is given what has just been written
    unsent = transport.get_write_buffer_size()
    if sock is not None and unsent:
        with contextlib.suppress(OSError, ValueError):  # it may be closed already, or the system may not tell
            unsent += int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return unsent


def reset(transport: asyncio.WriteTransport) -> None:
    """Aborts a connection with a reset instead of an orderly end; what is unsent is lost.

    A body without a length or chunks ends with its connection, so that after an orderly end it would look complete.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # it may be closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
