"""HTTP chunks and resets, for tests that have a connection in hand."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

_NO_LINGER = struct.pack("ii", 1, 0)
"""`struct linger`: on, for no time. The system then ends the connection with a reset."""


def chunk(data: bytes) -> bytes:
    """Returns one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes a connection with a reset; idempotent."""
    with suppress(OSError, ValueError):  # uvloop wants to make a socket of a closed descriptor
        handle = writer.get_extra_info("socket")
        if handle is not None:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
