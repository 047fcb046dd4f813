"""The sockets of asyncio's transports: their descriptors, and connections that end with a reset."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""`struct linger`: on, for no time. The system then ends the connection with a reset (POSIX, `SO_LINGER`)."""


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """The descriptor of a transport's socket; -1: it has none, or its bytes are not those that it is given (TLS)."""
    if transport.get_extra_info("sslcontext") is not None:
        return -1
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())


def reset(transport: asyncio.WriteTransport) -> None:
    """Aborts a connection with a reset instead of an orderly end; what is unsent is lost.

    A body without a length or chunks ends with its connection, so that after an orderly end it would look complete.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # it may be closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
