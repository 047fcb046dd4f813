"""What asyncio's transports do not say of their sockets."""

from __future__ import annotations

import asyncio


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """The descriptor of a transport's socket; -1: it has none, or its bytes are not those that it is given (TLS)."""
    if transport.get_extra_info("sslcontext") is not None:
        return -1
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())
