"""The bytes of a WebSocket client (RFC 6455) that is no browser: its key and its mask are constant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from gai_fast.kernels._pure.messages import head_of

STREAM: Final = "a"
"""The client's id of each of its streams, one after the other."""
_MASKED: Final = 0x80
_MASK: Final = bytes(4)
"""A mask that changes nothing."""


def handshake(path: str, host: str, subprotocol: str = "gai.events.v1") -> bytes:
    """Returns the request that opens a WebSocket.

    Args:
        path: The route.
        host: The `Host`.
        subprotocol: The subprotocol; empty for none.
    """
    line = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{line}\r\n"
    ).encode()


def request_message(request: Mapping[str, Any]) -> bytes:
    """Returns the message that starts a stream.

    Args:
        request: The native request.
    """
    return message({"stream": STREAM, "type": "request", "request": request})


def message(value: Mapping[str, Any]) -> bytes:
    """Returns a text message.

    Args:
        value: The JSON object in it.
    """
    payload = json.dumps(value).encode()
    first, size, *more = head_of(len(payload))
    return bytes((first, size | _MASKED, *more)) + _MASK + payload
